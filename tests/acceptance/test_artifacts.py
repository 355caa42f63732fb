"""Artifacts through the real manager: from one job's machine to GitLab and on to the next job's."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import zipfile

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until


def artifact(*paths, **more):
    """An entry of a payload's `artifacts`, as GitLab writes it."""
    return {
        "name": "", "untracked": False, "paths": list(paths), "exclude": [], "when": "on_success",
        "artifact_type": "archive", "artifact_format": "zip", "expire_in": "", **more,
    }  # fmt: skip


def run(gitlab, *, timeout=60, **job):
    """Run one job to its end; its view, and the lines of its trace."""
    number = gitlab.enqueue(make_job(**job))
    (view,) = gitlab.wait_for(number, timeout=timeout)
    return view, output_lines(gitlab.trace(number))


def names(found):
    """The names in an uploaded archive."""
    with zipfile.ZipFile(found["path"]) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_what_one_job_makes_the_next_one_has(gitlab, make_manager):
    make_manager().start()
    made, lines = run(
        gitlab,
        script=["mkdir -p 'out/sub dir'", "echo one > 'out/sub dir/ü 日本.txt'", "echo run > out/run.sh",
                "chmod 755 out/run.sh", "ln -s run.sh out/link", "touch out/skip.map"],
        artifacts=[artifact("out/", "nothing/*", exclude=["**/*.map"], expire_in="1 week", name="$CI_JOB_NAME")],
        name="build",
    )  # fmt: skip
    assert made.state == "success", lines
    (found,) = gitlab.artifacts(made.id)
    assert (found["filename"], found["expire_in"]) == ("build.zip", "1 week")
    assert names(found) == ["out/", "out/link", "out/run.sh", "out/sub dir/", "out/sub dir/ü 日本.txt"]
    assert "Uploading artifacts for successful job" in "\n".join(lines)
    assert "out/: found 5 matching artifact files and directories" in lines
    assert any("nothing/*: no matching files" in line for line in lines)
    dependency = gitlab.dependency(made.id, name="build")
    used, lines = run(
        gitlab,
        script=["cat 'out/sub dir/ü 日本.txt'", "test -x out/run.sh", "readlink out/link", "test ! -e out/skip.map"],
        dependencies=[dependency],
        project="demo/other",
    )
    assert used.state == "success", lines
    assert f"Downloading artifacts for build ({made.id})..." in lines
    assert {"one", "run.sh"} <= set(lines)
    everything = gitlab.trace(made.id) + gitlab.trace(used.id)
    assert dependency["token"].encode() not in everything
    assert b"X-Signature" not in everything


def test_reports_of_all_formats_arrive(gitlab, make_manager):
    make_manager().start()
    view, lines = run(
        gitlab,
        script=["echo '<a/>' > a.xml", "echo '<b/>' > b.xml", "echo KEY=value > build.env", "echo 1 > m.txt"],
        artifacts=[
            artifact("?.xml", artifact_type="junit", artifact_format="gzip", name="junit.xml", when="always"),
            artifact("build.env", artifact_type="dotenv", artifact_format="gzip", name=".env", when="always"),
            artifact("m.txt", artifact_type="metrics", artifact_format="raw", name="metrics.txt", when="always"),
            artifact("none.json", artifact_type="sast", artifact_format="raw", when="always"),
        ],
    )
    assert view.state == "success", lines
    junit, dotenv, metrics = gitlab.artifacts(view.id)
    assert gzip.decompress(pathlib.Path(junit["path"]).read_bytes()) == b"<a/>\n<b/>\n"
    assert gzip.decompress(pathlib.Path(dotenv["path"]).read_bytes()) == b"KEY=value\n"
    assert pathlib.Path(metrics["path"]).read_bytes() == b"1\n"
    assert [each["filename"] for each in (junit, dotenv, metrics)] == ["junit.xml.gz", ".env.gz", "metrics.txt"]


def test_after_a_failure_only_what_is_for_failures_is_uploaded(gitlab, make_manager):
    make_manager().start()
    source = gitlab.commit("demo/tracked", {"kept.txt": "x", ".gitignore": "*.log"})
    view, lines = run(
        gitlab,
        git=source,
        script=["echo l > test.log", "echo n > 'new file'", "exit 3"],
        artifacts=[
            artifact("kept.txt", artifact_type="junit"),
            artifact(untracked=True, when="on_failure"),
            artifact("kept.txt", artifact_type="lsif", when="always"),
        ],
    )
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 3)
    archive, lsif = gitlab.artifacts(view.id)
    assert names(archive) == ["new file", "test.log"]
    assert lsif["artifact_type"] == "lsif"
    assert "untracked: found 2 files" in lines
    assert any("Uploading artifacts for failed job" in line for line in lines)


def test_an_upload_that_gitlab_refuses_fails_a_good_job_and_says_what_to_do(gitlab, make_manager):
    make_manager().start()
    gitlab.set_knobs(artifacts_limit_bytes=10_000)
    view, lines = run(
        gitlab, script=["head -c 50000 /dev/urandom > big"], artifacts=[artifact("big")], after_script=["true"]
    )
    assert (view.state, view.failure_reason) == ("failed", "script_failure")
    said = "\n".join(lines)
    assert "413 Request Entity Too Large" in said
    assert "maximum artifacts size" in said
    assert gitlab.artifacts(view.id) == []


def test_answers_that_pass_are_waited_out(gitlab, make_manager):
    make_manager().start()
    elsewhere = gitlab.url.replace("127.0.0.1", "localhost")
    gitlab.add_fault("status", "artifact_upload", status=307, headers={"Location": f"{elsewhere}/x"})
    gitlab.add_fault("status", "artifact_upload", status=503, count=2)
    gitlab.add_fault("status", "object_storage", status=500)
    view, lines = run(gitlab, script=["echo x > x"], artifacts=[artifact("x")])
    assert view.state == "success", lines
    said = "\n".join(lines)
    assert "307 Temporary Redirect" in said
    assert said.count("503 Service Unavailable") == 2
    view, lines = run(gitlab, script=["cat x"], dependencies=[gitlab.dependency(view.id)], project="demo/other")
    assert view.state == "success", lines


def test_artifacts_that_are_gone_fail_the_job_before_its_script(gitlab, make_manager):
    make_manager().start()
    dependency = gitlab.dependency(gitlab.offer_artifacts(b"PK\x05\x06" + bytes(18)))
    gitlab.expire_artifacts(dependency["id"])
    view, lines = run(
        gitlab,
        script=["echo the script ran"],
        dependencies=[dependency],
        artifacts=[artifact("x", when="always")],
        variables={"ARTIFACT_DOWNLOAD_ATTEMPTS": "2", "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY": "false"},
    )
    assert (view.state, view.failure_reason) == ("failed", "script_failure")
    assert "the script ran" not in lines
    assert sum("not found: they have expired" in line for line in lines) == 2


def test_a_hundred_thousand_files(gitlab, make_manager):
    make_manager().start()
    make_files = (
        "python3 -c \"import os\nfor d in range(100):\n os.makedirs('many/%d' % d)\n"
        " for f in range(1000): open('many/%d/%d' % (d, f), 'w').write('%d' % f)\""
    )
    view, lines = run(gitlab, script=[make_files], artifacts=[artifact("many/")], timeout=240)
    assert view.state == "success", lines
    assert "many/: found 100101 matching artifact files and directories" in lines
    (found,) = gitlab.artifacts(view.id)
    with zipfile.ZipFile(found["path"]) as archive:
        assert len(archive.namelist()) == 100_101
        assert archive.read("many/99/999") == b"999"
    check = 'test "$(find many -type f | wc -l)" = 100000 && test "$(cat many/42/7)" = 7'
    found = gitlab.dependency(view.id)
    view, lines = run(gitlab, script=[check], dependencies=[found], project="demo/other", timeout=240)
    assert view.state == "success", lines


def agents_peak_mib():
    """The most memory that any process of an agent has had so far."""
    peaks = [0]
    for folder in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and b".pyz" in (folder / "cmdline").read_bytes():
                lines = (folder / "status").read_text().splitlines()
                peaks += [int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM:")]
    return max(peaks)


def test_two_gigabytes_go_up_and_down_in_flat_memory(gitlab, make_manager):
    make_manager().start()
    size = 2 << 30
    job = gitlab.enqueue(make_job(script=[f"truncate -s {size} large"], artifacts=[artifact("large")]))
    peaks = []

    def is_over():
        peaks.append(agents_peak_mib())
        return gitlab.job(job).is_ended

    wait_until(is_over, 240, "the upload")
    assert gitlab.job(job).state == "success", output_lines(gitlab.trace(job))
    (found,) = gitlab.artifacts(job)
    with zipfile.ZipFile(found["path"]) as archive:
        assert archive.getinfo("large").file_size == size
    script = [f'test "$(stat -c %s large)" = {size}', "rm large"]
    job = gitlab.enqueue(make_job(script=script, dependencies=[gitlab.dependency(job)], project="demo/other"))
    wait_until(is_over, 240, "the download")
    assert gitlab.job(job).state == "success", output_lines(gitlab.trace(job))
    assert 0 < max(peaks) < 100
