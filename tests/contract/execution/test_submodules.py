"""Submodules by real git from a real server that wants the job's token for each of them."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

from fleet.demo.payload import GitSource
from tests.contract.execution.conftest import GitServer, Workplace

RECURSIVE = {"GIT_SUBMODULE_STRATEGY": "recursive"}


@pytest.fixture
def shell() -> str:
    """The stricter one; what differs between shells is tested with the sources."""
    return "sh"


def git(at: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit_nested(server: GitServer, number: int = 1, address: str = "") -> GitSource:
    """A project with submodule `lib`, which has submodule `deep/er`; and submodule `docs`."""
    base = address or server.url + "/"
    inner = server.host.commit("other/inner", {"inner.txt": f"inner {number}"})
    lib = server.host.commit(
        "other/lib", {"lib.txt": f"lib {number}"}, submodules={"deep/er": (f"{base}other/inner.git", inner.sha)}
    )
    docs = server.host.commit("other/docs", {"docs.txt": f"docs {number}"})
    return server.host.commit(
        "group/project",
        {"a": str(number)},
        submodules={"lib": (f"{base}other/lib.git", lib.sha), "docs": ("../../other/docs.git", docs.sha)},
    )


def test_without_a_strategy_there_are_no_submodules(workplace: Workplace, server: GitServer) -> None:
    run = workplace.job(commit_nested(server))
    assert set(workplace.files()) == {"a", ".gitmodules"}
    assert "Skipping Git submodules setup" in run.outputs["get_sources"]


def test_normal_brings_the_first_level_and_recursive_all(workplace: Workplace, server: GitServer) -> None:
    source = commit_nested(server)
    run = workplace.job(source, variables={"GIT_SUBMODULE_STRATEGY": "normal"})
    assert run.codes["get_sources"] == 0, run.log
    assert "Updating/initializing submodules with git depth set to 20..." in run.outputs["get_sources"]
    assert workplace.files()["lib/lib.txt"] == "lib 1"
    assert workplace.files()["docs/docs.txt"] == "docs 1"
    assert "lib/deep/er/inner.txt" not in workplace.files()
    run = workplace.job(source, variables=RECURSIVE, depth=0)
    assert run.codes["get_sources"] == 0, run.log
    assert "Updating/initializing submodules recursively..." in run.outputs["get_sources"]
    assert workplace.files()["lib/deep/er/inner.txt"] == "inner 1"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_no_credentials_stay_behind_in_any_of_them(workplace: Workplace, server: GitServer) -> None:
    run = workplace.job(commit_nested(server), variables=RECURSIVE)
    assert run.codes["get_sources"] == 0, run.log
    assert workplace.token not in run.log
    assert workplace.holds(workplace.token) == []


@pytest.mark.parametrize("keeps_config", [False, True])
def test_the_next_job_updates_them_all(workplace: Workplace, server: GitServer, keeps_config: bool) -> None:
    executor = "shell" if keeps_config else "instance"
    workplace.job(commit_nested(server), variables=RECURSIVE, executor=executor)
    for number in (2, 3):
        run = workplace.job(commit_nested(server, number), variables=RECURSIVE, executor=executor)
        assert run.codes["get_sources"] == 0, run.log
        found = workplace.files()
        assert (found["lib/lib.txt"], found["lib/deep/er/inner.txt"]) == (f"lib {number}", f"inner {number}")
        assert found["docs/docs.txt"] == f"docs {number}"
        assert "Retrying" not in run.outputs["get_sources"]


def test_what_a_job_left_in_them_goes(workplace: Workplace, server: GitServer) -> None:
    source = commit_nested(server)
    workplace.job(source, variables=RECURSIVE)
    before = workplace.files()
    for name in ("lib/lib.txt", "lib/new", "lib/deep/er/inner.txt", "lib/deep/er/new", "docs/docs.txt"):
        (workplace.project / name).write_text("left by the job")
    modules = workplace.project / ".git/modules"
    for repository in (modules / "lib", modules / "lib/modules/deep/er"):
        (repository / "index.lock").touch()
        (repository / "hooks").mkdir(exist_ok=True)
        (repository / "hooks/post-checkout").write_text("#!/bin/sh\nexit 1\n")
        (repository / "hooks/post-checkout").chmod(0o755)
    with (modules / "lib/config").open("a") as config:
        config.write('[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://127.0.0.1:\n')
    run = workplace.job(source, variables=RECURSIVE)
    assert run.codes["get_sources"] == 0, run.log
    assert workplace.files() == before


def test_names_that_look_like_gits_own_files_are_safe(workplace: Workplace, server: GitServer) -> None:
    def commit(number: int) -> GitSource:
        for name in ("hooks", "config"):
            server.host.commit("other/odd", {"x": f"{number} {name}"}, ref=f"{name}/inner")
        odd = server.host.commit("other/odd", {"x": str(number)})
        where = f"{server.url}/other/odd.git"
        modules = dict.fromkeys(("hooks/one", "config", "post-checkout"), (where, odd.sha))
        return server.host.commit("group/project", {"a": str(number)}, submodules=modules)

    for number in (1, 2, 3):
        run = workplace.job(commit(number), variables=RECURSIVE)
        assert run.codes["get_sources"] == 0, run.log
        assert workplace.files()["hooks/one/x"] == workplace.files()["config/x"] == str(number)
        assert "Cloning" not in run.outputs["get_sources"] or number == 1


def test_a_submodule_that_goes_and_one_that_moves_are_followed(workplace: Workplace, server: GitServer) -> None:
    workplace.job(commit_nested(server), variables=RECURSIVE)
    moved = server.host.commit("moved/inner", {"inner.txt": "moved"})
    modules = {"deep/er": (f"{server.url}/moved/inner.git", moved.sha)}
    lib = server.host.commit("moved/lib", {"lib.txt": "moved"}, submodules=modules)
    source = server.host.commit(
        "group/project", {"a": "2"}, submodules={"lib": (f"{server.url}/moved/lib.git", lib.sha)}
    )
    run = workplace.job(source, variables=RECURSIVE)
    assert run.codes["get_sources"] == 0, run.log
    assert {key: value for key, value in workplace.files().items() if not key.endswith(".gitmodules")} == {
        "a": "2", "lib/lib.txt": "moved", "lib/deep/er/inner.txt": "moved",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "depth", "commits"),
    [({}, 1, 1), ({"GIT_SUBMODULE_DEPTH": "2"}, 1, 2), ({"GIT_SUBMODULE_DEPTH": "1"}, 0, 1), ({}, 0, 3)],
)
def test_their_depth_is_as_asked(
    workplace: Workplace, server: GitServer, variables: dict[str, str], depth: int, commits: int
) -> None:
    for number in range(3):
        source = commit_nested(server, number)
    run = workplace.job(source, variables={**RECURSIVE, **variables}, depth=depth)
    assert run.codes["get_sources"] == 0, run.log
    assert git(workplace.project / "lib", "rev-list", "--count", "HEAD") == str(commits)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ("lib", {"lib/lib.txt", "lib/deep/er/inner.txt"}),
        (":(exclude)lib", {"docs/docs.txt"}),
        ("docs", {"docs/docs.txt"}),
    ],
)
def test_only_some_of_them_can_be_brought(workplace: Workplace, server: GitServer, paths: str, found: set[str]) -> None:
    run = workplace.job(commit_nested(server), variables={**RECURSIVE, "GIT_SUBMODULE_PATHS": paths})
    assert run.codes["get_sources"] == 0, run.log
    assert set(workplace.files()) - {"a", ".gitmodules", "lib/.gitmodules"} == found


@pytest.mark.parametrize("form", ["git@{host}:", "ssh://git@{host}/", "ssh://git@{host}:2222/"])
def test_addresses_for_ssh_can_be_fetched_by_https(workplace: Workplace, server: GitServer, form: str) -> None:
    source = commit_nested(server, address=form.format(host="127.0.0.1"))
    variables = {
        **RECURSIVE, "GIT_SUBMODULE_FORCE_HTTPS": "true", "CI_SERVER_SHELL_SSH_HOST": "127.0.0.1",
        "CI_SERVER_SHELL_SSH_PORT": "2222",
    }  # fmt: skip
    run = workplace.job(source, variables=variables)
    assert run.codes["get_sources"] == 0, run.log
    assert workplace.files()["lib/deep/er/inner.txt"] == "inner 1"
    assert workplace.holds(workplace.token) == []


def test_flags_of_the_update_reach_git(workplace: Workplace, server: GitServer) -> None:
    source = commit_nested(server)
    newer = server.host.commit("other/docs", {"docs.txt": "newer"})
    flags = {"GIT_SUBMODULE_STRATEGY": "normal", "GIT_SUBMODULE_UPDATE_FLAGS": "--remote --jobs 2"}
    run = workplace.job(source, variables=flags | {"GIT_SUBMODULE_PATHS": "docs"})
    assert run.codes["get_sources"] == 0, run.log
    assert git(workplace.project / "docs", "rev-parse", "HEAD") == newer.sha


def test_an_update_that_fails_is_tried_once_more(workplace: Workplace, server: GitServer) -> None:
    source = commit_nested(server)
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    tools = workplace.home / "tools"
    tools.mkdir()
    (tools / "git").write_text(
        '#!/bin/sh\ncase "$*" in *"submodule update"*)'
        ' if [ ! -e "$HOME/failed" ]; then touch "$HOME/failed"; exit 9; fi ;; esac\n'
        f'exec {real} "$@"\n'
    )
    (tools / "git").chmod(0o755)
    workplace.environment["PATH"] = f"{tools}{os.pathsep}{workplace.environment['PATH']}"
    run = workplace.job(source, variables=RECURSIVE)
    assert run.codes["get_sources"] == 0, run.log
    assert "Updating submodules failed. Retrying..." in run.outputs["get_sources"]
    assert workplace.files()["lib/deep/er/inner.txt"] == "inner 1"


def test_one_that_cannot_be_had_fails_the_stage(workplace: Workplace, server: GitServer) -> None:
    gone = {"lib": (f"{server.url}/other/absent.git", "a" * 40)}
    source = server.host.commit("group/project", {"a": "1"}, submodules=gone)
    run = workplace.job(source, variables=RECURSIVE)
    assert run.codes["get_sources"] != 0
    assert run.outputs["get_sources"].count("Retrying") == 1


def test_the_jobs_own_git_commands_work_in_them(workplace: Workplace, server: GitServer) -> None:
    source = commit_nested(server)
    script = ["cd lib/deep/er", "git ls-remote origin main"]
    for credentials in ("false", "true"):
        variables = {**RECURSIVE, "FF_GIT_URLS_WITHOUT_TOKENS": credentials}
        run = workplace.job(source, script=script, variables=variables)
        assert run.codes["step_script"] == 0, run.log
        assert re.search(r"[0-9a-f]{40}\trefs/heads/main", run.outputs["step_script"])
        assert workplace.holds(workplace.token) == []


def test_their_large_files_are_pulled_too(workplace: Workplace, server: GitServer) -> None:
    tools = workplace.home / "tools"
    tools.mkdir()
    (tools / "git-lfs").write_text('#!/bin/sh\necho "$* in ${PWD##*/}" >> "$HOME/lfs-calls"\n')
    (tools / "git-lfs").chmod(0o755)
    workplace.environment["PATH"] = f"{tools}{os.pathsep}{workplace.environment['PATH']}"
    assert workplace.job(commit_nested(server), variables=RECURSIVE).codes["get_sources"] == 0
    pulls = [line for line in (workplace.home / "lfs-calls").read_text().splitlines() if line.startswith("pull")]
    assert sorted(pulls) == ["pull in docs", "pull in er", "pull in lib", "pull in project"]
    workplace.job(commit_nested(server), variables={**RECURSIVE, "GIT_LFS_SKIP_SMUDGE": "true"})
    assert len((workplace.home / "lfs-calls").read_text().splitlines()) == len(pulls) + 2


def test_a_job_can_be_told_to_tidy_them_up(workplace: Workplace, server: GitServer) -> None:
    source = commit_nested(server)
    script = ["echo x > lib/new; echo y > lib/deep/er/inner.txt"]
    run = workplace.job(source, script=script, variables={**RECURSIVE, "FF_ENABLE_JOB_CLEANUP": "true"})
    assert run.codes["cleanup_file_variables"] == 0, run.log
    assert workplace.files()["lib/deep/er/inner.txt"] == "inner 1"
    assert "lib/new" not in workplace.files()
