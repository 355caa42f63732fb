"""Sources by real git from a real server, through the stages of the job file."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import ssl
import subprocess
import threading

import pytest
import trustme

from tests.contract.execution.conftest import GitServer, Workplace


def git(at: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments], cwd=at, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def said(output: str) -> list[str]:
    """The lines of our own among git's, without colours."""
    return re.findall(r"\x1b\[32;1m(.*?)\x1b\[0;m", output)


def test_a_first_job_gets_the_commit_and_leaves_no_credentials(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a.txt": "one\n", "dir/b": "two\n"})
    run = workplace.job(source, script=["git log --format=%s -1", "cat a.txt"])
    assert run.codes["step_script"] == 0, run.log
    assert workplace.files() == {"a.txt": "one\n", "dir/b": "two\n"}
    assert said(run.outputs["get_sources"]) == [
        "Fetching changes with git depth set to 20...", "Created fresh repository.",
        f"Checking out {source.sha[:8]} as detached HEAD (ref is main)...", "Skipping Git submodules setup",
    ]  # fmt: skip
    assert workplace.token not in run.log
    assert workplace.holds(workplace.token) == []
    assert git(workplace.project, "config", "--local", "remote.origin.url") == f"{server.url}/group/project.git"
    assert {request.headers["User-Agent"] for request in server.seen} == {"fleet 0.1.0 linux/amd64"}


def test_the_next_job_fetches_into_the_same_repository_and_cleans_it(workplace: Workplace, server: GitServer) -> None:
    workplace.job(server.host.commit("group/project", {"a": "1", "gone": "x", ".gitignore": "ignored\n"}))
    (workplace.project / ".git/kept-by-fetch").touch()
    for name in ("untracked", "ignored", "dir/deep", "a"):
        path = workplace.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("left by the job")
    run = workplace.job(server.host.commit("group/project", {"a": "2", ".gitignore": "ignored\n"}))
    assert run.codes["get_sources"] == 0, run.log
    assert workplace.files() == {"a": "2", ".gitignore": "ignored\n"}
    assert (workplace.project / ".git/kept-by-fetch").exists()
    assert "Created fresh repository." not in said(run.outputs["get_sources"])
    assert workplace.holds(workplace.token) == []


def test_clone_begins_anew(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    workplace.job(source)
    (workplace.project / ".git/kept-by-fetch").touch()
    (workplace.project / "untracked").touch()
    run = workplace.job(source, variables={"GIT_STRATEGY": "clone"})
    assert workplace.files() == {"a": "1"}
    assert not (workplace.project / ".git/kept-by-fetch").exists()
    assert "Created fresh repository." in said(run.outputs["get_sources"])


def test_a_project_that_allows_no_fetch_is_cloned(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    workplace.job(source)
    (workplace.project / ".git/kept-by-fetch").touch()
    workplace.job(source, payload={"allow_git_fetch": False})
    assert not (workplace.project / ".git/kept-by-fetch").exists()


def test_none_keeps_what_is_there_and_empty_has_a_directory_of_its_own(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    workplace.job(source)
    server.seen.clear()
    run = workplace.job(source, variables={"GIT_STRATEGY": "none"}, script=["echo new > made"])
    assert workplace.files() == {"a": "1", "made": "new\n"}
    assert said(run.outputs["get_sources"]) == [
        "Skipping Git repository setup", "Skipping Git checkout", "Skipping Git submodules setup",
    ]  # fmt: skip
    for _ in range(2):
        run = workplace.job(source, variables={"GIT_STRATEGY": "empty"}, script=["pwd; ls -A; touch x"])
        assert run.outputs["step_script"].endswith(f"{workplace.project}-empty\n")
    assert server.seen == []


@pytest.mark.parametrize(("depth", "commits"), [(1, 1), (2, 2), (0, 4)])
def test_the_depth_is_as_asked(workplace: Workplace, server: GitServer, depth: int, commits: int) -> None:
    for number in range(4):
        source = server.host.commit("group/project", {"n": str(number)})
    workplace.job(source, depth=depth)
    assert git(workplace.project, "rev-list", "--count", "HEAD") == str(commits)


def test_the_whole_history_comes_into_a_shallow_repository(workplace: Workplace, server: GitServer) -> None:
    for number in range(3):
        source = server.host.commit("group/project", {"n": str(number)})
    workplace.job(source, depth=1)
    run = workplace.job(source, depth=0)
    assert said(run.outputs["get_sources"])[0] == "Fetching changes..."
    assert git(workplace.project, "rev-list", "--count", "HEAD") == "3"
    assert workplace.job(source, depth=0).codes["get_sources"] == 0


def test_a_tag_can_be_built(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"}, tag="v1.0")
    run = workplace.job(source)
    assert f"Checking out {source.sha[:8]} as detached HEAD (ref is v1.0)..." in said(run.outputs["get_sources"])
    assert git(workplace.project, "describe", "--tags") == "v1.0"


def test_without_checkout_the_tree_stays_as_it_is(workplace: Workplace, server: GitServer) -> None:
    first = server.host.commit("group/project", {"a": "1"})
    workplace.job(first)
    (workplace.project / "untracked").write_text("mine")
    second = server.host.commit("group/project", {"a": "2"})
    run = workplace.job(second, variables={"GIT_CHECKOUT": "false"})
    assert workplace.files() == {"a": "1", "untracked": "mine"}
    assert git(workplace.project, "rev-parse", "HEAD") == first.sha
    assert git(workplace.project, "rev-parse", "origin/main") == second.sha
    assert "Skipping Git checkout" in said(run.outputs["get_sources"])


@pytest.mark.parametrize(
    ("flags", "left"),
    [("-ffdx -e kept/", {"kept/x"}), ("none", {"kept/x", "other"}), ("-fd", {"ignored"}), ("", set())],
)
def test_cleaning_is_as_asked(workplace: Workplace, server: GitServer, flags: str, left: set[str]) -> None:
    source = server.host.commit("group/project", {".gitignore": "ignored\n"})
    workplace.job(source)
    (workplace.project / "kept").mkdir()
    for name in ("kept/x", "other", *(["ignored"] if flags == "-fd" else [])):
        (workplace.project / name).touch()
    workplace.job(source, variables={"GIT_CLEAN_FLAGS": flags})
    assert set(workplace.files()) - {".gitignore"} == left


def test_fetch_flags_are_as_asked(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"}, tag="v1")
    branch = server.host.commit("group/project", {"a": "1"})
    run = workplace.job(branch, variables={"GIT_FETCH_EXTRA_FLAGS": "--no-tags --prune"})
    assert git(workplace.project, "tag") == ""
    assert "new branch" in run.outputs["get_sources"]  # --quiet was not among the flags
    assert workplace.job(branch, variables={"GIT_FETCH_EXTRA_FLAGS": "none"}).codes["get_sources"] == 0
    assert source.sha != ""


def test_what_an_earlier_job_left_does_no_harm(workplace: Workplace, server: GitServer) -> None:
    workplace.job(server.host.commit("group/project", {"a": "1"}))
    own = workplace.project / ".git"
    for name in ("index.lock", "shallow.lock", "HEAD.lock", "config.lock", "refs/remotes/origin/main.lock"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).touch()
    (own / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction"):
        (own / "hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
        (own / "hooks" / hook).chmod(0o755)
    with (own / "config").open("a") as config:
        config.write('[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://127.0.0.1:\n[core]\n\tfsmonitor = false\n')
    run = workplace.job(server.host.commit("group/project", {"a": "2"}))
    assert run.codes["get_sources"] == 0, run.log
    assert workplace.files() == {"a": "2"}


def test_the_shell_executor_keeps_the_repositorys_configuration(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    workplace.job(source, executor="shell")
    git(workplace.project, "config", "own.key", "kept")
    for _ in range(2):
        assert workplace.job(source, executor="shell").codes["get_sources"] == 0
    assert git(workplace.project, "config", "own.key") == "kept"
    assert len(git(workplace.project, "config", "--local", "--get-all", "include.path").splitlines()) == 1
    workplace.job(source, executor="shell", clean_git_config=True)
    assert "own.key" not in git(workplace.project, "config", "--local", "--list")


def test_a_second_attempt_begins_with_an_empty_tree(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    workplace.job(source)
    (workplace.project / "untracked").touch()
    hook = 'if [ ! -e "$HOME/tried" ]; then touch "$HOME/tried"; exit 3; fi; ls -A "$CI_PROJECT_DIR"'
    run = workplace.job(source, variables={"GET_SOURCES_ATTEMPTS": "2"}, pre_get_sources_script=hook)
    assert run.codes["get_sources"] == 0, run.log
    assert "\x1b[0;m\n.git\n" in run.outputs["get_sources"]
    assert workplace.files() == {"a": "1"}


def test_a_server_out_of_order_is_tried_again(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    server.failures_left = 2
    run = workplace.job(source, variables={"GET_SOURCES_ATTEMPTS": "3"})
    assert run.codes["get_sources"] == 0, run.log
    server.failures_left = 10
    run = workplace.job(source, script=["echo never"])
    assert run.codes["get_sources"] == 128
    assert "step_script" not in run.codes


def test_a_dead_token_fails_at_once_and_asks_nobody(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    server.refuses_all = True
    run = workplace.job(source)
    assert run.codes["get_sources"] == 128
    assert "403" in run.outputs["get_sources"]


def test_the_jobs_own_git_commands_have_the_credentials(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    other = server.host.commit("group/project", {"b": "2"}, ref="other")
    script = ["git fetch origin other", "git rev-parse FETCH_HEAD", "git remote -v | grep -c x || true"]
    run = workplace.job(source, script=script)
    assert run.codes["step_script"] == 0, run.log
    assert other.sha in run.outputs["step_script"]


def test_credentials_can_stay_out_of_addresses(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    script = ["git remote get-url origin", "git ls-remote origin"]
    run = workplace.job(source, script=script, variables={"FF_GIT_URLS_WITHOUT_TOKENS": "true"})
    assert run.codes["step_script"] == 0, run.log
    assert f"\n{server.url}/group/project.git\n" in run.outputs["step_script"]
    assert workplace.token not in run.log


@pytest.mark.parametrize("is_newest", [True, False])
def test_a_native_clone_takes_flags_and_gets_the_commit(
    workplace: Workplace, server: GitServer, is_newest: bool
) -> None:
    source = server.host.commit("group/project", {"a": "1"}, tag="v1")
    if not is_newest:  # a shallow clone has the branch's end only; the commit is fetched as GitLab asks for it
        server.host.commit("group/project", {"a": "2"})
    source = dataclasses.replace(source, ref="main", ref_type="branch")
    variables = {
        "GIT_STRATEGY": "clone", "FF_USE_GIT_NATIVE_CLONE": "true", "GIT_CLONE_EXTRA_FLAGS": "--no-tags",
        "GIT_FETCH_EXTRA_FLAGS": "--no-tags --quiet",
    }  # fmt: skip
    info = {"refspecs": [f"+{source.sha}:refs/pipelines/1"]}
    run = workplace.job(source, variables=variables, depth=1, git_info=info)
    assert run.codes["get_sources"] == 0, run.log
    assert "Cloning into" in run.outputs["get_sources"]
    assert workplace.files() == {"a": "1"}
    assert git(workplace.project, "tag") == ""
    assert workplace.holds(workplace.token) == []


def test_a_job_can_be_told_to_tidy_up(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    variables = {"FF_ENABLE_JOB_CLEANUP": "true"}
    run = workplace.job(source, script=["echo x > new; echo y > a"], variables=variables)
    assert run.codes["cleanup_file_variables"] == 0, run.log
    assert workplace.files() == {"a": "1"}
    workplace.job(source, variables=variables | {"GIT_STRATEGY": "clone"})
    assert not workplace.project.exists()


def test_another_address_can_stand_for_the_servers(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    by_name = server.url.replace("127.0.0.1", "localhost")
    run = workplace.job(source, variables={"CI_PROJECT_PATH": "group/project"}, clone_url=by_name + "/")
    assert run.codes["get_sources"] == 0, run.log
    assert git(workplace.project, "config", "--local", "remote.origin.url") == f"{by_name}/group/project.git"
    assert {request.host.split(":")[0] for request in server.seen} == {"localhost"}


def test_a_directory_is_marked_safe_once(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    for _ in range(2):
        assert workplace.job(source, safe_directory_checkout=True).codes["get_sources"] == 0
    known = subprocess.run(
        ["git", "config", "--file", str(workplace.home / ".gitconfig"), "--get-all", "safe.directory"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert known.splitlines() == [str(workplace.project)]


def test_a_lock_that_another_job_holds_is_waited_for(workplace: Workplace, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a": "1"})
    lock = workplace.home / ".gitconfig.lock"
    lock.touch()
    release = threading.Timer(1.0, lock.unlink)
    release.start()
    run = workplace.job(source, safe_directory_checkout=True)
    release.join()
    assert run.codes["get_sources"] == 0, run.log
    assert "group/project" in (workplace.home / ".gitconfig").read_text(encoding="utf-8")


def test_large_files_are_pulled_where_lfs_is_installed(workplace: Workplace, server: GitServer) -> None:
    tools = workplace.home / "tools"
    tools.mkdir()
    (tools / "git-lfs").write_text('#!/bin/sh\necho "lfs $* (skip=${GIT_LFS_SKIP_SMUDGE-no})" >> "$HOME/lfs-calls"\n')
    (tools / "git-lfs").chmod(0o755)
    workplace.environment["PATH"] = f"{tools}{os.pathsep}{workplace.environment['PATH']}"
    source = server.host.commit("group/project", {"a": "1"})
    assert workplace.job(source).codes["get_sources"] == 0
    calls = workplace.home / "lfs-calls"
    assert calls.read_text().splitlines() == ["lfs version (skip=no)", "lfs pull (skip=no)"]
    calls.unlink()
    workplace.job(source, variables={"GIT_LFS_SKIP_SMUDGE": "1"})
    assert not calls.exists()


def test_repositories_of_the_newer_object_format_are_fetched(workplace: Workplace, server: GitServer) -> None:
    bare = server.host.root / "group/modern.git"
    bare.mkdir(parents=True)
    git(bare, "init", "--quiet", "--bare", "--object-format=sha256", "--initial-branch=main", ".")
    git(bare, "config", "uploadpack.allowAnySHA1InWant", "true")
    tree = git(bare, "mktree")
    sha = git(bare, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", tree, "-m", "first")
    git(bare, "update-ref", "refs/heads/main", sha)
    info = {"repo_object_format": "sha256", "sha": sha, "ref": "main", "depth": 1}
    token = server.token()
    address = f"{server.url}/group/modern.git".replace("://", f"://gitlab-ci-token:{token}@")
    source = server.host.commit("group/project", {"a": "1"})
    payload = {"git_info": {**info, "repo_url": address}, "token": token}
    run = workplace.job(source, payload=payload)
    assert run.codes["get_sources"] == 0, run.log
    assert git(workplace.project, "rev-parse", "HEAD") == sha


def test_a_server_with_a_private_authority_is_trusted_by_git_as_by_us(workplace: Workplace) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    workplace.server = server = GitServer(context)
    try:
        inner = server.host.commit("other/inner", {"x": "inner"})
        modules = {"inner": (f"{server.url}/other/inner.git", inner.sha)}
        source = server.host.commit("group/project", {"a": "1"}, submodules=modules)
        variables = {"GIT_SUBMODULE_STRATEGY": "normal"}
        assert workplace.job(source, variables=variables).codes["get_sources"] == 128
        pem = authority.cert_pem.bytes().decode()
        script = ["git ls-remote origin", 'head -1 "$CI_SERVER_TLS_CA_FILE"']
        run = workplace.job(source, variables=variables, tls_ca=pem, script=script)
        assert run.codes["step_script"] == 0, run.log
        assert run.outputs["step_script"].endswith("-----BEGIN CERTIFICATE-----\n")
        assert workplace.files()["inner/x"] == "inner"
    finally:
        server.close()
