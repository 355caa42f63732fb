"""Artifacts and reports: what is uploaded, under which name and format, and what a later job gets."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from tests.acceptance.pipelines.case import BOTH, Case, Job, failed
from tests.acceptance.pipelines.case import case as any_case
from tests.acceptance.pipelines.uploads import Upload, uploads_of

TREE = [
    "mkdir -p out/deep/er 'with space'",
    "echo one >out/a.txt; echo two >out/b.log; echo three >out/deep/c.txt; echo four >out/deep/er/d.txt",
    "echo five >'with space/ü.txt'; echo top >top.txt",
]
JUNIT = "echo '<testsuite/>' >report.xml; echo '<testsuite name=\"2\"/>' >second.xml"


def case(name: str, title: str, *jobs: Job, **more: Any) -> Case:
    return any_case(name, "1.15", title, *jobs, **{"on": BOTH} | more)


def artifact(*paths: str, **more: Any) -> dict[str, Any]:
    """One entry of a payload."""
    plain = {
        "name": "", "untracked": False, "paths": list(paths), "exclude": [], "when": "on_success",
        "artifact_type": "archive", "artifact_format": "zip", "expire_in": "",
    }  # fmt: skip
    return plain | more


def given(*artifacts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"artifacts": list(artifacts), **more}


def report(kind: str, *paths: str, **more: Any) -> dict[str, Any]:
    return artifact(*paths, **{"artifact_type": kind, "artifact_format": "gzip", "name": f"{kind}.xml",
                               "when": "always"} | more)  # fmt: skip


Check = Callable[[Sequence[Upload]], Sequence[str]]


def uploaded(check: Check) -> Callable[[Any, Any, bytes], Sequence[str]]:
    """What GitLab was given is as `check` wants it."""
    return lambda world, view, trace: check(uploads_of(world, view.id))


def names_in(*names: str, filename: str = "") -> Any:
    """One archive with exactly these files in it."""

    def check(found: Sequence[Upload]) -> list[str]:
        if len(found) != 1:
            return [f"{len(found)} uploads, not 1"]
        with zipfile.ZipFile(io.BytesIO(found[0].content)) as archive:
            inside = sorted(name for name in archive.namelist() if not name.endswith("/"))
        wrong = [] if inside == sorted(names) else [f"in the archive are {inside}"]
        return wrong + ([] if filename in {"", found[0].filename} else [f"its name is {found[0].filename}"])

    return uploaded(check)


def nothing() -> Any:
    return uploaded(lambda found: [f"uploaded: {found[0].filename}"] if found else [])


def is_like(**wanted: Any) -> Any:
    """One upload with these properties."""

    def check(found: Sequence[Upload]) -> list[str]:
        if len(found) != 1:
            return [f"{len(found)} uploads, not 1"]
        return [
            f"{key} is {getattr(found[0], key)!r}" for key, value in wanted.items() if getattr(found[0], key) != value
        ]

    return uploaded(check)


def gzipped(text: str) -> Any:
    return uploaded(
        lambda found: [] if found and gzip.decompress(found[0].content).decode() == text else ["another content"]
    )


def begins(magic: bytes, filename: str) -> Any:
    return uploaded(
        lambda found: (
            []
            if [(each.content[: len(magic)], each.filename) for each in found] == [(magic, filename)]
            else [f"{[(each.content[:4], each.filename) for each in found]}"]
        )
    )


def goes_wrong(kind: str, endpoint: str, **more: Any) -> Callable[[Any, int], None]:
    """A fault that strikes this job alone."""

    def during(world: Any, job: int) -> None:
        world.gitlab.add_fault(kind, endpoint, job_id=job, **more)

    return during


def expired(world: Any, job: int) -> None:
    world.gitlab.expire_artifacts(world.numbers["download-expired"][0])


ONE = Job(script=TREE, more=given(artifact("out", "top.txt")))
EMPTY = {"GIT_STRATEGY": "empty"}  # so that nothing but the download brings a file
LATER: dict[str, Any] = {"variables": EMPTY, "more": {"dependencies": ["@dependency/1@"]}}
BROKEN: dict[str, Any] = {"state": "failed", "reason": "script_failure", "exit_code": 1}
CASES: tuple[Case, ...] = (
    case("artifact-zip", "files and directories are uploaded as a zip with their paths", Job(
        script=TREE, more=given(artifact("out", "top.txt")), has=["Uploading artifacts"],
        also=names_in("out/a.txt", "out/b.log", "out/deep/c.txt", "out/deep/er/d.txt", "top.txt",
                      filename="artifacts.zip"))),
    case("artifact-name", "the name of the artifact, with variables in it, is the archive's", Job(
        script=TREE, more=given(artifact("top.txt", name="$CI_JOB_NAME-x")),
        also=names_in("top.txt", filename="artifact-name-x.zip"))),
    case("artifact-expire", "expire_in reaches GitLab", Job(
        script=TREE, more=given(artifact("top.txt", expire_in="1 week")), also=is_like(expire_in="1 week"))),
    case("artifact-globs", "paths take *, ** and ?", Job(
        script=TREE, more=given(artifact("out/**/*.txt", "t?p.*")),
        also=names_in("out/a.txt", "out/deep/c.txt", "out/deep/er/d.txt", "top.txt"))),
    case("artifact-exclude", "`exclude` takes files out", Job(
        script=TREE, more=given(artifact("out", exclude=["out/**/*.log", "out/deep/er/**"])),
        also=names_in("out/a.txt", "out/deep/c.txt"))),
    case("artifact-variables", "variables in paths are filled in", Job(
        script=TREE, variables={"WHERE": "out/deep"}, more=given(artifact("$WHERE/*.txt")),
        also=names_in("out/deep/c.txt"))),
    case("artifact-untracked", "`untracked` takes what git does not know", Job(
        files={"README": "known\n", ".gitignore": "*.log\n"}, script=TREE,
        more=given(artifact(untracked=True, exclude=["out/deep/**"])),
        also=names_in("out/a.txt", "out/b.log", "top.txt", "with space/ü.txt"))),
    case("artifact-spaces", "names with spaces and Unicode come through", Job(
        script=TREE, more=given(artifact("with space")), also=names_in("with space/ü.txt"))),
    case("artifact-outside", "files outside of the project are refused", Job(
        script=["echo x >../outside.txt", "echo in >inside.txt"], more=given(artifact("../outside.txt", "inside.txt")),
        also=names_in("inside.txt"), pattern="(?i)outside")),
    case("artifact-none", "where no file matches there is a warning and no upload", Job(
        more=given(artifact("no/such/*")), also=nothing(), has=["no/such/*"], pattern="(?i)no matching files")),
    case("artifact-success", "`when: on_success` uploads nothing of a failed job", failed(
        1, script=[*TREE, "false"], more=given(artifact("top.txt")), also=nothing())),
    case("artifact-failure", "`when: on_failure` does, and nothing of a good one", failed(
        1, script=[*TREE, "false"], more=given(artifact("top.txt", when="on_failure")), also=names_in("top.txt")), Job(
        script=TREE, more=given(artifact("top.txt", when="on_failure")), also=nothing())),
    case("artifact-always", "`when: always` uploads in both", failed(
        1, script=[*TREE, "false"], more=given(artifact("top.txt", when="always")), also=names_in("top.txt")), Job(
        script=TREE, more=given(artifact("top.txt", when="always")), also=names_in("top.txt"))),
    case("artifact-after-sources", "what `when: always` names is uploaded also when the sources cannot be had", Job(
        more=given(artifact("left.txt", when="always"),
                   hooks=[{"name": "pre_get_sources_script", "script": ["echo x >left.txt; exit 4"]}]),
        state="failed", reason="script_failure", exit_code=4, has=["Uploading artifacts"])),
    case("artifact-several", "several artifacts are uploaded, each by itself", Job(
        script=[*TREE, JUNIT], more=given(artifact("top.txt"), report("junit", "report.xml")),
        also=uploaded(lambda found: [] if sorted(each.kind for each in found) == ["archive", "junit"]
                      else [f"{[each.kind for each in found]}"]))),
    case("report-gzip", "a report is uploaded as gzip under its type", Job(
        script=[JUNIT], more=given(report("junit", "report.xml")),
        also=is_like(kind="junit", format="gzip", filename="junit.xml.gz"))),
    case("report-content", "its files follow each other", Job(
        script=["printf 1 >a.xml; printf 2 >b.xml"], more=given(report("junit", "*.xml")), also=gzipped("12"))),
    case("report-dotenv", "also `dotenv`, of which the server makes variables", Job(
        script=["echo A=1 >build.env"], more=given(report("dotenv", "build.env", name="")), also=gzipped("A=1\n"))),
    case("report-failed", "reports of a failed job are uploaded", failed(
        1, script=[JUNIT, "false"], more=given(report("junit", "report.xml")), also=is_like(kind="junit"))),
    *(case(f"report-{kind}", f"report type `{kind}` is passed on", Job(
        script=["echo '{}' >r.json"], more=given(report(kind, "r.json", artifact_format=how, name="")),
        also=is_like(kind=kind, format=how))) for kind, how in (
            ("sast", "raw"), ("codequality", "raw"), ("coverage_report", "gzip"), ("terraform", "raw"),
            ("metrics", "gzip"), ("cyclonedx", "gzip"), ("performance", "raw"), ("accessibility", "raw"),
            ("secret_detection", "raw"), ("dependency_scanning", "raw"), ("lsif", "zip"))),
    case("artifact-raw", "`raw` is one file as it is", Job(
        script=["printf raw >one.bin"], more=given(artifact("one.bin", artifact_format="raw", artifact_type="sast")),
        also=uploaded(lambda found: [] if [each.content for each in found] == [b"raw"] else ["another content"]))),
    case("artifact-zstd", "`tarzstd` is written where zstd is there", Job(
        script=TREE, more=given(artifact("out", artifact_format="tarzstd")),
        also=begins(b"\x28\xb5\x2f\xfd", "artifacts.tar.zst"))),
    case("artifact-level", "ARTIFACT_COMPRESSION_LEVEL is taken", Job(
        script=["head -c 100000 /dev/zero >zeros"], variables={"ARTIFACT_COMPRESSION_LEVEL": "slowest"},
        more=given(artifact("zeros")), also=names_in("zeros"))),
    case("artifact-root-file", "a file that only its owner may read is uploaded", Job(
        script=["echo x >private; chmod 0600 private"], more=given(artifact("private")), also=names_in("private"))),
    case("upload-fails", "an upload that is refused fails a job that was fine", Job(
        **BROKEN, script=TREE, more=given(artifact("top.txt")),
        during=goes_wrong("status", "artifact_upload", status=403, count=None), pattern="(?i)forbidden")),
    case("upload-too-large", "one that is too large is not tried again", Job(
        **BROKEN, script=TREE, more=given(artifact("top.txt")),
        during=goes_wrong("status", "artifact_upload", status=413, count=None), pattern="(?i)too large")),
    case("upload-hides-nothing", "but does not hide what failed before", failed(
        7, script=[*TREE, "exit 7"], more=given(artifact("top.txt", when="always")),
        during=goes_wrong("status", "artifact_upload", status=403, count=None))),
    case("upload-again", "503 is tried again", Job(
        script=TREE, more=given(artifact("top.txt")),
        during=goes_wrong("status", "artifact_upload", status=503, count=1), also=names_in("top.txt"))),
    case("upload-broken-off", "so is a connection that broke", Job(
        script=TREE, more=given(artifact("top.txt")),
        during=goes_wrong("lost_answer", "artifact_upload", count=1), also=names_in("top.txt"))),
    case("upload-statement", "RUNNER_GENERATE_ARTIFACTS_METADATA adds a statement of provenance", Job(
        script=TREE, variables={"RUNNER_GENERATE_ARTIFACTS_METADATA": "true"}, more=given(artifact("top.txt")),
        also=names_in("top.txt", "artifacts-metadata.json"))),
    case("upload-order", "artifacts come before the job's end is told", Job(
        script=TREE, more=given(artifact("top.txt")),
        calls=("acknowledged", "first_trace", "artifact archive artifacts.zip", "final", "ended"))),
    case("download", "the artifacts of an earlier job are brought", ONE, Job(
        **LATER, script=["cat top.txt out/deep/er/d.txt"], lines=["top", "four"], has=["Downloading artifacts"])),
    case("download-indirect", "also without FF_USE_DIRECT_DOWNLOAD", ONE, Job(**LATER | {
        "variables": {**EMPTY, "FF_USE_DIRECT_DOWNLOAD": "false"}}, script=["cat top.txt"], lines=["top"])),
    case("download-none", "a dependency without a file is passed over", Job(more={
        "dependencies": [{"id": 1, "token": "x", "name": "earlier", "artifacts_file": {"filename": "", "size": 0}}]},
        lines=["hello"])),
    case("download-expired", "artifacts that are gone fail the job before its script", ONE, Job(
        **LATER | BROKEN, script=["echo never"], after=["echo never"], during=expired, lacks=["\nnever"])),
    case("download-attempts", "ARTIFACT_DOWNLOAD_ATTEMPTS is taken", ONE, Job(**LATER | {
        "variables": {**EMPTY, "ARTIFACT_DOWNLOAD_ATTEMPTS": "2"}}, script=["cat top.txt"], lines=["top"])),
    case("download-modes", "file modes and links come through", Job(
        script=["echo 'echo runs' >p; chmod 0755 p; ln -s p l"], more=given(artifact("p", "l"))), Job(
        **LATER, script=["./l"], lines=["runs"])),
    case("artifact-links", "symbolic links are kept as links", Job(
        script=["echo x >target; ln -s target link"], more=given(artifact("target", "link")),
        also=names_in("target", "link"))),
)  # fmt: skip
