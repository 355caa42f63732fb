"""What a job leaves for later ones is read from its job file, as the manager really writes it."""

from __future__ import annotations

import pytest

from fleet.agent import uses
from fleet.settings.docker import DockerTable
from tests.contract.execution.job_inputs import payload_of, render_with

GIT = {"repo_url": "https://gitlab.example/g/p.git", "sha": "a" * 40, "ref": "main", "refspecs": ["+refs/heads/main"]}
CACHE = [{"key": "deps", "paths": ["vendor"], "policy": "pull-push", "when": "on_success"}]


def names(job: dict, kind: str) -> list[str]:
    return [thing.name for thing in uses.things_of(job) if thing.kind == kind]


def test_a_shell_job_leaves_its_project_directory_and_its_cache_archives() -> None:
    job = render_with(payload_of(git_info=GIT, cache=CACHE), cache_dir="/var/cache/ci").job_file
    assert names(job, uses.BUILD) == ["/home/ci/builds/abcdefghi/1/group/project"]
    (archive,) = names(job, uses.CACHE)
    assert archive.startswith("/var/cache/ci/")
    assert archive.endswith("/cache.zip")
    assert names(job, uses.VOLUME) == names(job, uses.IMAGE) == []


def test_a_job_in_containers_leaves_cache_volumes_and_images() -> None:
    payload = payload_of(git_info=GIT, allow_git_fetch=True, services=[{"name": "registry.example:5000/db"}])
    docker = DockerTable(image="alpine:3", host="unix:///run/docker.sock", volumes=("/cache",))
    job = render_with(payload, executor="docker-autoscaler", docker=docker).job_file
    assert {"alpine:3", "registry.example:5000/db:latest"} <= set(names(job, uses.IMAGE))
    kept = {each["name"] for each in job["containers"]["volumes"] if each["keep"]}
    assert kept
    assert set(names(job, uses.VOLUME)) == kept
    assert names(job, uses.BUILD) == []
    assert {thing.engine["host"] for thing in uses.things_of(job)} == {"unix:///run/docker.sock"}


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("alpine", "alpine:latest"),
        ("docker.io/library/alpine:3", "alpine:3"),
        ("registry.example:5000/db", "registry.example:5000/db:latest"),
        ("db@sha256:00ff", "db@sha256:00ff"),
    ],
)
def test_names_that_mean_one_image_are_one(said: str, full: str) -> None:
    assert uses.full_name(said) == full
