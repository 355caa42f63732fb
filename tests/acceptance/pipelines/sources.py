"""How sources come: strategies, depth, cleaning, submodules, LFS, credentials, paths."""

from __future__ import annotations

from typing import Any

from fleet.demo.payload import GitSource
from tests.acceptance.pipelines.case import DOCKER, INSTANCE, Case, Job, case, failed, var

LEAK = 'grep -r "$CI_JOB_TOKEN" .git >/dev/null && echo leaked || echo clean'
ONE = {"README": "one\n"}
STRATEGIES = ("none", "normal", "recursive")


def tagged(world: Any) -> GitSource:
    world.gitlab.commit("pipelines/source-tag", {"README": "old\n"})
    source: GitSource = world.gitlab.commit("pipelines/source-tag", {"README": "tagged\n"}, tag="v1.0")
    return source


def branched(world: Any) -> GitSource:
    source: GitSource = world.gitlab.commit("pipelines/source-branch", {"README": "branch\n"}, ref="feature/a-b")
    return source


def deep(name: str, depth: int) -> Any:
    """A history of four commits, of which `depth` are asked for."""

    def source(world: Any) -> GitSource:
        for number in range(4):
            made = world.gitlab.commit(f"pipelines/{name}", {"README": f"{number}\n"})
        fields = {key: getattr(made, key) for key in ("project", "sha", "ref", "ref_type", "before_sha", "protected")}
        return GitSource(**fields, depth=depth)

    return source


def nested(name: str) -> Any:
    """A repository with a submodule in which there is another one."""

    def source(world: Any) -> GitSource:
        root, url = f"pipelines/{name}", world.gitlab.url
        innermost = world.gitlab.commit(f"{root}-nested", {"file": "nested\n"})
        inner = world.gitlab.commit(
            f"{root}-inner", {"file": "inner\n"}, submodules={"nested": (f"{url}/{root}-nested.git", innermost.sha)}
        )
        other = world.gitlab.commit(f"{root}-other", {"file": "other\n"})
        made: GitSource = world.gitlab.commit(
            root,
            {"file": "outer\n"},
            submodules={
                "inner": (f"{url}/{root}-inner.git", inner.sha),
                "other": (f"{url}/{root}-other.git", other.sha),
            },
        )
        return made

    return source


def by_ssh(world: Any) -> GitSource:
    """A submodule whose address is for people with SSH keys."""
    inner = world.gitlab.commit("pipelines/source-https-inner", {"file": "inner\n"})
    made: GitSource = world.gitlab.commit(
        "pipelines/source-https",
        {"file": "outer\n"},
        submodules={"inner": ("git@127.0.0.1:pipelines/source-https-inner.git", inner.sha)},
    )
    return made


def gone(world: Any) -> GitSource:
    """A commit that the server does not have."""
    made = world.gitlab.commit("pipelines/source-gone", ONE)
    return GitSource(project=made.project, sha="0123456789" * 4, ref="no-such-branch")


def with_large(name: str) -> Any:
    def source(world: Any) -> GitSource:
        made: GitSource = world.gitlab.commit(
            f"pipelines/{name}", {"README": "small\n"}, large={"data.bin": "a large file\n"}
        )
        return made

    return source


def large_in_submodule(world: Any) -> GitSource:
    inner = world.gitlab.commit("pipelines/source-lfs-sub-inner", {}, large={"data.bin": "large and inner\n"})
    made: GitSource = world.gitlab.commit(
        "pipelines/source-lfs-sub",
        {"file": "outer\n"},
        submodules={"inner": (f"{world.gitlab.url}/pipelines/source-lfs-sub-inner.git", inner.sha)},
    )
    return made


def elsewhere(payload: dict[str, Any]) -> None:
    """The server's own address cannot be reached from the machine."""
    payload["git_info"]["repo_url"] = "http://gitlab-ci-token:x@nowhere.invalid/pipelines/source-clone-url.git"


SUBMODULES = "cat file; cat inner/file inner/nested/file other/file 2>/dev/null || true"

CASES: tuple[Case, ...] = (
    case("source-clone", "1.9", "the working copy has the files of the commit, as a detached HEAD", Job(
        files={"README": "hello\n", "deep/file": "deep\n"},
        script=["cat README deep/file", '[ "$(git rev-parse HEAD)" = "$CI_COMMIT_SHA" ] && echo "the commit"',
                "git symbolic-ref -q HEAD || echo detached"],
        lines=["hello", "deep", "the commit", "detached"], has=["Checking out"])),
    case("source-no-token", "1.9", "no token is left in the repository", Job(
        files=ONE, script=[LEAK, "git config remote.origin.url"],
        lines=["clean", "@url@/@project@.git"])),
    case("source-token-in-helper", "1.9", "FF_GIT_URLS_WITHOUT_TOKENS gives the token by a credential helper", Job(
        files=ONE, variables={"FF_GIT_URLS_WITHOUT_TOKENS": "true"},
        script=[LEAK, "git ls-remote origin main | wc -l"], lines=["clean", "1"]), runner="host"),
    case("source-own-git", "1.9", "the job's own git commands are logged in", Job(
        files=ONE, script=["git fetch -q origin main && echo fetched"], lines=["fetched"]),
        runner="host"),
    case("source-fetch", "1.9", "`fetch` uses the working copy of an earlier job and cleans it", Job(
        files=ONE, script=["touch left-behind", "mkdir -p ignored && touch ignored/file"],
        has=["Created fresh repository"]), Job(
        files={"README": "two\n", ".gitignore": "ignored\n"}, script=["ls -A", "cat README"], lines=["two"],
        lacks=["\nleft-behind\n", "\nignored\n", "Created fresh repository"])),
    case("source-fetch-default", "1.9", "without `allow_git_fetch` the strategy is `clone`", Job(
        files=ONE), Job(
        files=ONE, more={"allow_git_fetch": False}, has=["Created fresh repository"])),
    case("source-clone-anew", "1.9", "`clone` begins from nothing", Job(
        files=ONE, script=["touch left-behind"]), Job(
        files=ONE, variables={"GIT_STRATEGY": "clone", "GIT_CLEAN_FLAGS": "none"}, script=["ls -A"],
        lacks=["\nleft-behind\n"], has=["Created fresh repository"])),
    case("source-clone-native", "1.9", "FF_USE_GIT_NATIVE_CLONE clones with `git clone` and GIT_CLONE_EXTRA_FLAGS", Job(
        files=ONE, script=["cat README", LEAK],
        variables={"GIT_STRATEGY": "clone", "FF_USE_GIT_NATIVE_CLONE": "true", "GIT_CLONE_EXTRA_FLAGS": "--no-tags"},
        has=["Cloning into"], lines=["one", "clean"])),
    case("source-none", "1.9", "`none` leaves the directory as it is", Job(
        files=ONE, script=["touch kept"]), Job(
        files=ONE, variables={"GIT_STRATEGY": "none"}, script=["ls -A"], lines=["README", "kept"],
        has=["Skipping Git repository setup"]), on=(INSTANCE,)),
    case("source-none-volume", "1.9", "in a container `none` has an empty directory, for only `fetch` keeps one", Job(
        files=ONE, script=["touch kept"]), Job(
        files=ONE, variables={"GIT_STRATEGY": "none"}, script=["ls -A | wc -l"], lines=["0"],
        has=["Skipping Git repository setup"]), on=(DOCKER,)),
    case("source-empty", "1.9", "`empty` makes an empty directory, whose name ends in -empty", Job(
        files=ONE), Job(
        files=ONE, variables={"GIT_STRATEGY": "empty"},
        script=["ls -A | wc -l", 'case $PWD in *-empty) echo "its own name";; esac'], lines=["0", "its own name"])),
    case("source-unknown", "1.9", "an unknown strategy is refused", Job(
        files=ONE, variables={"GIT_STRATEGY": "magic"}, state="failed", reason="runner_configuration_error",
        has=["GIT_STRATEGY is 'magic'"])),
    case("source-depth", "1.9", "the payload's depth is that of the history", Job(
        source=deep("source-depth", 2), script=["git log --oneline | wc -l"], lines=["2"],
        has=["git depth set to 2"])),
    case("source-full", "1.9", "depth 0 is the whole history, also where there was less of it", Job(
        source=deep("source-full", 1), script=["git log --oneline | wc -l"], lines=["1"]), Job(
        source=deep("source-full", 0), script=["git log --oneline | wc -l"], lines=["8"])),
    case("source-no-checkout", "1.9", "GIT_CHECKOUT=false fetches alone", Job(
        files=ONE), Job(
        files={"README": "two\n"}, variables={"GIT_CHECKOUT": "false"}, script=["cat README"], lines=["one"],
        has=["Skipping Git checkout"])),
    case("source-clean-flags", "1.9", "GIT_CLEAN_FLAGS are those of `git clean`", Job(
        files=ONE, script=["touch kept lost"]), Job(
        files=ONE, variables={"GIT_CLEAN_FLAGS": "-ffdx -e kept"}, script=["ls -A"], lines=["kept"],
        lacks=["\nlost\n"])),
    case("source-clean-none", "1.9", "GIT_CLEAN_FLAGS=none cleans nothing", Job(
        files=ONE, script=["touch kept"]), Job(
        files=ONE, variables={"GIT_CLEAN_FLAGS": "none"}, script=["ls -A"], lines=["kept"])),
    case("source-fetch-flags", "1.9", "GIT_FETCH_EXTRA_FLAGS are those of `git fetch`", Job(
        files=ONE, variables={"GIT_FETCH_EXTRA_FLAGS": "--no-tags --verbose"}, has=["POST git-upload-pack"])),
    case("source-locks", "1.9", "locks and hooks that an earlier job left are removed", Job(
        files=ONE, script=["touch .git/index.lock .git/shallow.lock .git/HEAD.lock .git/config.lock",
                           "mkdir -p .git/refs/heads && touch .git/refs/heads/main.lock",
                           "printf '#!/bin/sh\\nexit 9\\n' >.git/hooks/post-checkout || mkdir .git/hooks"]), Job(
        files={"README": "two\n"}, script=["cat README"], lines=["two"])),
    case("source-config", "1.9", "the configuration that an earlier job left does not count", Job(
        files=ONE, script=["git config core.hooksPath /tmp/nowhere", "git config remote.origin.url http://127.0.0.1:1/"]),
        Job(files={"README": "two\n"}, script=["cat README", "git config core.hooksPath || echo unset"],
            lines=["two", "unset"])),
    case("source-broken", "1.9", "a working copy that git cannot use is made anew by a further attempt", Job(
        files=ONE, script=["rm -rf .git/objects .git/HEAD"]), Job(
        files=ONE, variables={"GET_SOURCES_ATTEMPTS": "2"}, script=["cat README"], lines=["one"])),
    case("source-tag", "1.9", "a tag is checked out", Job(
        source=tagged, script=["cat README", "echo $CI_COMMIT_TAG"], lines=["tagged", "v1.0"])),
    case("source-branch", "1.9", "a branch whose name has a slash is checked out", Job(
        source=branched, script=["cat README", "git branch -r"], lines=["branch"], has=["origin/feature/a-b"])),
    case("source-gone", "1.9", "a commit that is not there fails the job before its script", Job(
        source=gone, script=["echo never"], after=["echo never"], state="failed", reason="script_failure",
        exit_code=128, lacks=["\nnever"])),
    case("source-submodules-none", "1.9", "submodules are left out unless asked for", Job(
        source=nested("source-submodules-none"), script=[SUBMODULES], lines=["outer"], lacks=["\ninner\n"],
        has=["Skipping Git submodules setup"])),
    case("source-submodules-normal", "1.9", "GIT_SUBMODULE_STRATEGY=normal brings those of the first level", Job(
        source=nested("source-submodules-normal"), variables={"GIT_SUBMODULE_STRATEGY": "normal"},
        script=[SUBMODULES, LEAK], lines=["outer", "inner", "other", "clean"], lacks=["\nnested\n"])),
    case("source-submodules-recursive", "1.9", "GIT_SUBMODULE_STRATEGY=recursive brings all, and again", *(Job(
        source=nested("source-submodules-recursive"), variables={"GIT_SUBMODULE_STRATEGY": "recursive"},
        script=[SUBMODULES, LEAK], lines=["outer", "inner", "nested", "other", "clean"]) for _ in range(2))),
    case("source-submodules-paths", "1.9", "GIT_SUBMODULE_PATHS takes some, and excludes some", Job(
        source=nested("source-submodules-paths"), script=[SUBMODULES], lines=["outer", "inner"], lacks=["\nother\n"],
        variables={"GIT_SUBMODULE_STRATEGY": "normal", "GIT_SUBMODULE_PATHS": ":(exclude)other"})),
    case("source-submodules-depth", "1.9", "GIT_SUBMODULE_DEPTH and GIT_SUBMODULE_UPDATE_FLAGS are passed on", Job(
        source=nested("source-submodules-depth"), script=[SUBMODULES], lines=["outer", "inner"],
        variables={"GIT_SUBMODULE_STRATEGY": "normal", "GIT_SUBMODULE_DEPTH": "3",
                   "GIT_SUBMODULE_UPDATE_FLAGS": "--jobs 2"}, has=["with git depth set to 3"])),
    case("source-submodules-clean", "1.9", "an earlier job's changes in submodules are undone", Job(
        source=nested("source-submodules-clean"), variables={"GIT_SUBMODULE_STRATEGY": "recursive"},
        script=["echo changed >inner/file", "touch inner/nested/left"]), Job(
        source=nested("source-submodules-clean"), variables={"GIT_SUBMODULE_STRATEGY": "recursive"},
        script=["cat inner/file", "ls -A inner/nested"], lines=["inner"], lacks=["\nleft\n"])),
    case("source-https", "1.9", "GIT_SUBMODULE_FORCE_HTTPS turns SSH addresses into the server's own", Job(
        source=by_ssh, script=["cat inner/file"], lines=["inner"],
        variables=[var("GIT_SUBMODULE_STRATEGY", "normal"), var("GIT_SUBMODULE_FORCE_HTTPS", "true"),
                   var("CI_SERVER_SHELL_SSH_HOST", "127.0.0.1")])),
    case("source-lfs", "1.9", "large files come with `git lfs pull`", Job(
        source=with_large("source-lfs"), script=["cat data.bin", LEAK], lines=["a large file", "clean"])),
    case("source-lfs-skip", "1.9", "GIT_LFS_SKIP_SMUDGE leaves their pointers", Job(
        source=with_large("source-lfs-skip"), variables={"GIT_LFS_SKIP_SMUDGE": "1"}, script=["cat data.bin"],
        has=["oid sha256:"], lacks=["a large file"])),
    case("source-lfs-submodule", "1.9", "those of submodules come, too", Job(
        source=large_in_submodule, variables={"GIT_SUBMODULE_STRATEGY": "normal"}, script=["cat inner/data.bin"],
        lines=["large and inner"])),
    case("source-path", "1.9", "GIT_CLONE_PATH is the project directory where the runner allows it", Job(
        files=ONE, variables={"GIT_CLONE_PATH": "$CI_BUILDS_DIR/elsewhere/here"},
        script=["cat README", 'echo "${PWD#"$CI_BUILDS_DIR"}"'], lines=["one", "/elsewhere/here"]), runner="paths"),
    case("source-path-refused", "1.9", "it is refused where the runner does not", Job(
        files=ONE, variables={"GIT_CLONE_PATH": "$CI_BUILDS_DIR/elsewhere"}, state="failed",
        reason="runner_configuration_error", has=["GIT_CLONE_PATH"])),
    case("source-path-outside", "1.9", "it is refused outside of the builds directory", Job(
        files=ONE, variables={"GIT_CLONE_PATH": "$CI_BUILDS_DIR/../elsewhere"}, state="failed",
        reason="runner_configuration_error", has=["GIT_CLONE_PATH"]), runner="paths"),
    case("source-clone-url", "1.9", "the runner's `clone_url` replaces the server's part of the address", Job(
        files=ONE, script=["cat README"], lines=["one"],
        edit=elsewhere), runner="paths"),
    case("source-attempts", "1.9", "GET_SOURCES_ATTEMPTS tries again, with an empty work tree", Job(
        files=ONE, variables={"GET_SOURCES_ATTEMPTS": "3"}, script=["cat README", "test -e half || echo removed"],
        more={"hooks": [{"name": "post_get_sources_script", "script": [
            "test -e ../tried-source-attempts || { touch ../tried-source-attempts half; exit 4; }"]}]},
        has=["Attempt 2 of 3 follows"], lines=["one", "removed"])),
    case("source-attempts-over", "1.9", "after the last attempt the job fails with its exit code", failed(
        6, files=ONE, variables={"GET_SOURCES_ATTEMPTS": "2"},
        more={"hooks": [{"name": "post_get_sources_script", "script": ["exit 6"]}]}, has=["Attempt 2 of 2 follows"])),
    case("source-timeout", "1.9", "get_sources_timeout ends the job at once", Job(
        files=ONE, more={"hooks": [{"name": "pre_get_sources_script", "script": ["sleep 60"]}]},
        after=["echo never"], state="failed", reason="job_execution_timeout", lacks=["\nnever"]), runner="limits"),
    case("source-cleanup", "1.9", "FF_ENABLE_JOB_CLEANUP cleans the working copy at the end", Job(
        files=ONE, variables={"FF_ENABLE_JOB_CLEANUP": "true"}, script=["touch left-behind"]), Job(
        files=ONE, variables={"GIT_CLEAN_FLAGS": "none"}, script=["ls -A"], lines=["README"],
        lacks=["\nleft-behind\n", "Created fresh repository"])),
    case("source-spaces", "1.9", "files with spaces, quotes and Unicode in their names come through", Job(
        files={"a b/c'd": "spaced\n", "ü/漢": "unicode\n"}, script=["cat \"a b/c'd\" ü/漢"],
        lines=["spaced", "unicode"])),
)  # fmt: skip
