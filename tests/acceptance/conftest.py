"""What every acceptance test stands on: a pretend GitLab that is asked for violations at the end, and managers."""

from __future__ import annotations

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.state import Knobs
from tests.acceptance.manager import Manager


@pytest.fixture
def gitlab():
    """A pretend GitLab; the test fails when the manager broke the protocol."""
    with PretendGitLab(threads=96, knobs=Knobs(update_interval_s=1)) as server:
        yield server
        assert server.violations() == []


@pytest.fixture
def make_manager(tmp_path, gitlab):
    """Makes managers; their processes and machines are ended after the test."""
    made = []

    def make(name="m", **keywords):
        manager = Manager(tmp_path / name, gitlab, **keywords)
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.clear()
