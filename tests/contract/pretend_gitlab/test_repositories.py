"""Repositories over smart HTTP, read by the real git client."""

from __future__ import annotations

import os
import subprocess

import pytest

from fleet.demo.payload import make_job


def git(*arguments: object, cwd=None) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def source(gitlab):
    gitlab.commit("group/project", {"README": "first\n"})
    return gitlab.commit("group/project", {"README": "second\n", "bin/run": "#!/bin/sh\necho run\n"})


@pytest.fixture
def cloned_job(gitlab, runner, source):
    gitlab.enqueue(make_job(git=source))
    return runner.take_and_acknowledge()


def test_a_running_job_fetches_its_commit_as_the_payload_says(gitlab, cloned_job, source, tmp_path):
    info = cloned_job.payload["git_info"]
    git("init", tmp_path / "work")
    fetched = git("fetch", "--depth", info["depth"], info["repo_url"], *info["refspecs"], cwd=tmp_path / "work")
    assert fetched.returncode == 0, fetched.stderr
    git("checkout", info["sha"], cwd=tmp_path / "work")
    assert (tmp_path / "work/README").read_text() == "second\n"
    assert os.access(tmp_path / "work/bin/run", os.X_OK)
    assert "GIT_STRATEGY" not in [item["key"] for item in cloned_job.payload["variables"]]
    assert gitlab.violations() == []


def test_a_clone_has_the_history(cloned_job, source, tmp_path):
    assert git("clone", cloned_job.payload["git_info"]["repo_url"], tmp_path / "work").returncode == 0
    log = git("log", "--format=%H", cwd=tmp_path / "work").stdout.split()
    assert log[0] == source.sha
    assert log[1] == source.before_sha


def test_a_tag_and_a_submodule_are_served(gitlab, runner, source, tmp_path):
    url = f"{gitlab.url}/group/project.git"
    tagged = gitlab.commit("group/outer", {"a": "a"}, tag="v1", submodules={"inner": (url, source.sha)})
    assert (tagged.ref, tagged.ref_type) == ("v1", "tag")
    gitlab.enqueue(make_job(git=tagged))
    job = runner.take_and_acknowledge()
    repo_url = job.payload["git_info"]["repo_url"]
    assert git("clone", "--branch", "v1", repo_url, tmp_path / "work").returncode == 0
    login = repo_url.partition("@")[0] + "@" + gitlab.url.partition("//")[2]
    update = git("-c", f"url.{login}.insteadOf={gitlab.url}", "submodule", "update", "--init", cwd=tmp_path / "work")
    assert update.returncode == 0, update.stderr
    assert (tmp_path / "work/inner/README").read_text() == "second\n"


def test_without_a_live_jobs_token_nothing_is_read(gitlab, cloned_job, tmp_path):
    bare = f"{gitlab.url}/group/project.git"
    assert "could not read Username" in git("clone", bare, tmp_path / "a").stderr
    url = cloned_job.payload["git_info"]["repo_url"]
    cloned_job.finish()
    assert git("clone", url, tmp_path / "b").returncode != 0


def test_nobody_pushes(cloned_job, tmp_path):
    url = cloned_job.payload["git_info"]["repo_url"]
    git("clone", url, tmp_path / "work")
    assert git("push", url, "HEAD:refs/heads/other", cwd=tmp_path / "work").returncode != 0


def test_an_unknown_project_is_not_found(gitlab, cloned_job, tmp_path):
    url = cloned_job.payload["git_info"]["repo_url"].replace("group/project", "group/nothing")
    assert "not found" in git("clone", url, tmp_path / "work").stderr
    assert gitlab.violations() == []
