"""A running job at a real pretend GitLab, a project directory, and the agent's transfers as a stage does them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fleet.agent import transfer
from fleet.agent.transfer import download, upload
from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import make_job
from fleet.demo.state import Knobs
from tests.contract.pretend_gitlab.raw_runner import RawJob, RawRunner


@pytest.fixture
def gitlab() -> Iterator[PretendGitLab]:
    """A pretend GitLab; the test fails when the agent broke the protocol."""
    with PretendGitLab(threads=12, knobs=Knobs()) as server:
        yield server
        assert server.violations() == []


@pytest.fixture
def project(tmp_path):
    """A project directory with a few files."""
    root = tmp_path / "builds" / "project"
    (root / "dist").mkdir(parents=True)
    (root / "dist" / "a.txt").write_text("a" * 1000)
    (root / "dist" / "ü b.txt").write_text("ü")
    (root / "report.xml").write_text("<testsuites/>")
    return root


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """The pauses between tries are asked for, and not waited out."""
    for module in (upload, download):
        monkeypatch.setattr(module.time, "sleep", lambda _: None)


class Stage:
    """Makes transfers of one running job and does them."""

    def __init__(self, gitlab: PretendGitLab, project: Any, job: RawJob) -> None:
        self.gitlab = gitlab
        self.project = project
        self.job = job
        self.api = f"{gitlab.url}/api/v4/"

    def upload(self, *items: dict[str, Any], **special: Any) -> int:
        given = [{"name": "", "paths": [], "exclude": [], "untracked": False, **item} for item in items]
        return self._run("upload_artifacts", given, {"level": "default", "metadata": None} | special)

    def download(self, *items: dict[str, Any], **special: Any) -> int:
        return self._run("download_artifacts", [self._dependency(item) for item in items], {"direct": True} | special)

    def _dependency(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"id": item["id"], "token": item["token"], "name": item["name"], **item["artifacts_file"]}

    def _run(self, do: str, items: list[dict[str, Any]], special: dict[str, Any]) -> int:
        return transfer.run({
            "do": do, "api": self.api, "job_id": self.job.id, "token": self.job.token, "tls": {}, "environment": {},
            "root": str(self.project), "items": items, "meter_s": 0, "timeout_s": 30, "header_timeout_s": 10, **special,
        })  # fmt: skip


@pytest.fixture
def start(gitlab: PretendGitLab, project: Any) -> Iterator[Callable[..., Stage]]:
    """Starts a job whose payload asks for these artifacts."""
    runner = RawRunner(gitlab.url, gitlab.create_runner()["token"])

    def begin(*asked: tuple[str, ...]) -> Stage:
        artifacts = [
            dict(zip(("artifact_type", "artifact_format", "expire_in"), itertools.chain(each, ("",) * 3), strict=False))
            for each in asked or (("archive", "zip"),)
        ]
        gitlab.enqueue(make_job(artifacts=artifacts))
        return Stage(gitlab, project, runner.take_and_acknowledge())

    yield begin
    runner.close()
