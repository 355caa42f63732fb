"""Caches: keys, policies, when, fallbacks, what may go wrong."""

from __future__ import annotations

from typing import Any

from tests.acceptance.pipelines.case import BOTH, DOCKER, Case, Job, failed
from tests.acceptance.pipelines.case import case as any_case

FILL = "mkdir -p deps && echo kept >deps/file"
LOOK = "cat deps/file 2>/dev/null || echo 'nothing there'"
EMPTY = {"GIT_STRATEGY": "empty"}  # so that nothing but the cache brings a file back


def case(name: str, title: str, *jobs: Job, **more: Any) -> Case:
    return any_case(name, "1.14", title, *jobs, **{"on": BOTH} | more)


def cache(*paths: str, key: str = "key", **more: Any) -> dict[str, Any]:
    plain = {"key": key, "untracked": False, "policy": "pull-push", "paths": list(paths), "when": "on_success"}
    return plain | {"fallback_keys": []} | more


def caches(*given: dict[str, Any]) -> dict[str, Any]:
    return {"cache": list(given)}


def fills(given: dict[str, Any] | None = None, **more: Any) -> Job:
    return Job(**{"script": [FILL], "variables": EMPTY, "more": caches(given or cache("deps"))} | more)


def finds(given: dict[str, Any] | None = None, line: str = "kept", **more: Any) -> Job:
    plain: dict[str, Any] = {"script": [LOOK], "variables": EMPTY, "lines": [line]}
    return Job(**plain | {"more": caches(given or cache("deps"))} | more)


def misses(given: dict[str, Any] | None = None, **more: Any) -> Job:
    return finds(given, line="nothing there", **more)


ODD = cache("de ps", key="schlüssel x")
KEYED = {"WHICH": "own", **EMPTY}
CASES: tuple[Case, ...] = (
    case("cache-kept", "what a job caches the next one has", fills(), finds()),
    case("cache-log", "the log tells of restoring and saving", fills(
        has=["Restoring cache", "Saving cache for successful job"]), finds()),
    case("cache-key", "another key is another cache", fills(cache("deps", key="a")), misses(cache("deps", key="b")),
         finds(cache("deps", key="a"))),
    case("cache-key-variables", "variables in keys are filled in",
         fills(cache("deps", key="x-$WHICH"), variables=KEYED), finds(cache("deps", key="x-own"))),
    case("cache-key-none", "without a key it is that of the job's name and its branch",
         fills(cache("deps", key="")), finds(cache("deps", key="$CI_JOB_NAME/$CI_COMMIT_REF_NAME"))),
    case("cache-key-escape", "a key cannot lead out of the project's caches",
         fills(cache("deps", key="../../escape")), Job(script=[LOOK], variables=EMPTY)),
    case("cache-project", "another project's cache is another one", fills(), misses(
        more=caches(cache("deps")) | {"project": "pipelines/cache-project-other", "project_id": 99})),
    case("cache-pull", "policy `pull` saves nothing", fills(cache("deps", policy="pull")), misses()),
    case("cache-push", "policy `push` restores nothing", fills(), misses(cache("deps", policy="push"))),
    case("cache-policy-variables", "variables in policies are filled in", fills(
        cache("deps", policy="$HOW"), variables={"HOW": "pull", **EMPTY}), misses()),
    case("cache-failed", "a failed job saves nothing", failed(
        1, script=[FILL, "false"], variables=EMPTY, more=caches(cache("deps"))), misses()),
    case("cache-on-failure", "`when: on_failure` saves of a failed job alone", fills(cache("deps", when="on_failure")),
         misses(cache("deps", when="on_failure")),
         failed(1, script=[FILL, "false"], variables=EMPTY, more=caches(cache("deps", when="on_failure"))), finds()),
    case("cache-always", "`when: always` saves in both", failed(
        1, script=[FILL, "false"], variables=EMPTY, more=caches(cache("deps", when="always"))), finds()),
    case("cache-fallback", "fallback keys are tried in order", fills(cache("deps", key="second")), finds(
        cache("deps", key="new", fallback_keys=["first", "second"]))),
    case("cache-fallback-variable", "CACHE_FALLBACK_KEY is the last of them", fills(cache("deps", key="far")), finds(
        cache("deps", key="new"), variables={"CACHE_FALLBACK_KEY": "far", **EMPTY})),
    case("cache-fallback-protected", "unless it ends with -protected", fills(cache("deps", key="x-protected")), misses(
        cache("deps", key="new"), variables={"CACHE_FALLBACK_KEY": "x-protected", **EMPTY})),
    case("cache-several", "a job may have several caches", fills(cache("deps", key="one")), Job(
        script=["mkdir other; echo other >other/file", LOOK], variables=EMPTY, lines=["kept"],
        more=caches(cache("deps", key="one"), cache("other", key="two"))), Job(
        script=[LOOK, "cat other/file"], variables=EMPTY, lines=["kept", "other"],
        more=caches(cache("deps", key="one"), cache("other", key="two")))),
    case("cache-globs", "paths take *, ** and ?", Job(
        script=["mkdir -p deps/deep; echo kept >deps/file; echo x >deps/deep/a.o; echo y >deps/deep/b.c"],
        variables=EMPTY, more=caches(cache("deps/file", "**/*.o"))), Job(
        script=[LOOK, "ls deps/deep"], variables=EMPTY, lines=["kept", "a.o"], lacks=["\nb.c\n"],
        more=caches(cache("deps")))),
    case("cache-untracked", "`untracked` caches what git does not know", Job(
        files={"README": "x\n"}, script=[FILL], more=caches(cache(untracked=True))), finds()),
    case("cache-nothing", "where no file matches the job goes on", Job(
        more=caches(cache("no/such")), lines=["hello"], pattern="(?i)no matching files|nothing to")),
    case("cache-missing", "a cache that is not there is no failure", misses(cache("deps", key="never"))),
    case("cache-attempts", "RESTORE_CACHE_ATTEMPTS is taken", fills(), finds(
        variables={"RESTORE_CACHE_ATTEMPTS": "2", **EMPTY})),
    case("cache-zstd", "CACHE_COMPRESSION_FORMAT tarzstd is written and read", fills(
        variables={"CACHE_COMPRESSION_FORMAT": "tarzstd", **EMPTY}), finds()),
    case("cache-level", "CACHE_COMPRESSION_LEVEL is taken", fills(
        variables={"CACHE_COMPRESSION_LEVEL": "slowest", **EMPTY}), finds()),
    case("cache-modes", "file modes and links come through", Job(
        script=["mkdir deps; echo 'echo runs' >deps/program; chmod 0755 deps/program; ln -s program deps/link"],
        variables=EMPTY, more=caches(cache("deps"))), Job(
        script=["./deps/link", "readlink deps/link"], variables=EMPTY, more=caches(cache("deps")),
        lines=["runs", "program"])),
    case("cache-hashed", "FF_HASH_CACHE_KEYS hashes the keys", fills(
        variables={"FF_HASH_CACHE_KEYS": "true", **EMPTY}), finds(variables={"FF_HASH_CACHE_KEYS": "true", **EMPTY})),
    case("cache-protected", "a protected branch has caches of its own", fills(), misses(
        edit=lambda payload: payload["git_info"].update(protected=True)), on=(DOCKER,)),
    case("cache-unicode", "keys and names with spaces and Unicode come through", Job(
        script=["mkdir 'de ps'; echo kept >'de ps/ü'"], variables=EMPTY, more=caches(ODD)),
        Job(script=["cat 'de ps/ü'"], variables=EMPTY, more=caches(ODD), lines=["kept"])),
)  # fmt: skip
