from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import make_job
from fleet.demo.state import Knobs
from tests.contract.pretend_gitlab.raw_runner import RawJob, RawRunner


@pytest.fixture
def gitlab() -> Iterator[PretendGitLab]:
    with PretendGitLab(threads=12, knobs=Knobs()) as server:
        yield server


@pytest.fixture
def new_runner(gitlab: PretendGitLab) -> Iterator[Callable[..., RawRunner]]:
    """Makes further managers; with a token, of the same runner."""
    made: list[RawRunner] = []

    def make(token: str | None = None) -> RawRunner:
        made.append(RawRunner(gitlab.url, token or gitlab.create_runner()["token"]))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def runner(new_runner: Callable[..., RawRunner]) -> RawRunner:
    return new_runner()


@pytest.fixture
def job(gitlab: PretendGitLab, runner: RawRunner) -> RawJob:
    """A job that is running."""
    gitlab.enqueue(make_job())
    return runner.take_and_acknowledge()
