"""A supervisor tells of its log at once after a pause, and then together."""

from __future__ import annotations

import pathlib

import pytest

from fleet.agent import telling
from fleet.agent.logfile import LogFile
from fleet.agent.telling import LATE_S, MUCH_BYTES, NEVER, Teller


class CountingDoors:
    def __init__(self) -> None:
        self.knocks = 0

    def knock(self, _name: str) -> None:
        self.knocks += 1


class Scene:
    """A teller whose clock is ours."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(telling.time, "monotonic", lambda: self.now)
        self.doors = CountingDoors()
        self.log = LogFile(str(folder / "log"), None, "")
        self.teller = Teller(self.doors, "x", self.log)

    def write(self, size: int, after_s: float) -> float:
        self.now += after_s
        self.log.write(b"x" * size)
        return self.teller.log_grew()


@pytest.fixture
def scene(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    made = Scene(tmp_path, monkeypatch)
    yield made
    made.log.close()


def test_the_first_bytes_are_told_at_once(scene) -> None:
    assert scene.write(1, 0) == NEVER
    assert scene.doors.knocks == 1


def test_the_next_ones_wait_until_the_oldest_is_late(scene) -> None:
    scene.write(1, 0)
    assert scene.write(1, 0.1) == scene.now + LATE_S
    due = scene.write(1, 0.2)
    assert scene.doors.knocks == 1
    scene.now = due
    assert scene.teller.log_grew() == NEVER
    assert scene.doors.knocks == 2


def test_much_is_told_at_once(scene) -> None:
    scene.write(1, 0)
    scene.write(MUCH_BYTES, 0.01)
    assert scene.doors.knocks == 2


def test_the_first_output_of_a_step_is_told_at_once(scene) -> None:
    scene.write(1, 0)
    scene.teller.hurry()
    scene.write(1, 0.01)
    scene.write(1, 0.01)
    assert scene.doors.knocks == 2


def test_a_log_that_did_not_grow_is_not_told(scene) -> None:
    assert scene.teller.log_grew() == NEVER
    assert scene.doors.knocks == 0
