from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fleet.execution.layout import Layout, default_layout, project_path, with_clone_path
from fleet.execution.refused import JobRefused
from fleet.gitlab.failure_reasons import FailureReason
from tests.contract.execution.job_inputs import LEASE, RUNNER, machine_at, payload_of


def placed(payload: Any = None, **runner: Any) -> Layout:
    return default_layout(
        payload=payload or payload_of(), runner=dataclasses.replace(RUNNER, **runner), machine=machine_at("/home/ci"),
        lease=LEASE,
    )  # fmt: skip


def test_a_project_lies_below_the_builds_directory_by_runner_and_concurrent_id() -> None:
    layout = placed()
    assert layout.builds == "/home/ci/builds"
    assert layout.project == "/home/ci/builds/abcdefghi/1/group/project"
    assert layout.tmp == layout.project + ".tmp"


@pytest.mark.parametrize(
    ("given", "builds"),
    [("/data/ci/", "/data/ci"), ("work/b", "/home/ci/work/b"), ("/a/../b", "/b"), (None, "/home/ci/builds")],
)
def test_the_builds_directory_may_be_another(given: str | None, builds: str) -> None:
    assert placed(builds_dir=given).builds == builds


def test_a_common_build_directory_has_no_parts_between() -> None:
    assert placed(use_common_build_dir=True).project == "/home/ci/builds/group/project"


@pytest.mark.parametrize(
    ("info", "url", "path"),
    [
        ("group/sub/project", "", "group/sub/project"),
        ("", "https://x:y@gitlab.example/group/project.git", "group/project"),
        ("", "", "project-42"),
        ("../../etc", "", "project-42"),
        ("group/./x", "", "project-42"),
        ("//group//x/", "", "group/x"),
    ],
)
def test_the_project_path_never_leads_out(info: str, url: str, path: str) -> None:
    payload = payload_of(job_info={"project_id": 42, "project_full_path": info}, git_info={"repo_url": url})
    assert project_path(payload) == path


def test_a_clone_path_inside_of_the_builds_directory_is_taken_where_allowed() -> None:
    layout = placed()
    assert with_clone_path(layout, "", allowed=False) is layout
    assert with_clone_path(layout, "/home/ci/builds/x/y", allowed=True).project == "/home/ci/builds/x/y"
    assert with_clone_path(layout, "x", allowed=True).project == "/home/ci/builds/x"


@pytest.mark.parametrize("path", ["/tmp/x", "/home/ci/builds", "/home/ci/builds/../x", "/home/ci/buildsx/y", ".."])
def test_a_clone_path_outside_is_refused(path: str) -> None:
    with pytest.raises(JobRefused, match="outside of the builds directory") as refused:
        with_clone_path(placed(), path, allowed=True)
    assert refused.value.reason is FailureReason.RUNNER_CONFIGURATION_ERROR


def test_a_clone_path_is_refused_where_the_runner_does_not_allow_it() -> None:
    with pytest.raises(JobRefused, match="custom_build_dir"):
        with_clone_path(placed(), "/home/ci/builds/x", allowed=False)
