"""Below the reserve of any of its disks the manager takes no jobs, and says so once."""

from __future__ import annotations

import os

import structlog
from structlog.testing import capture_logs

from fleet.runtime import disk
from fleet.runtime.disk import Disks


def free_of(path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def looking(paths, reserve: int) -> Disks:
    return Disks(paths=[str(path) for path in paths], reserve_bytes=reserve)


def test_enough_room_is_no_problem(tmp_path):
    assert looking([tmp_path], 1).problem() is None


def test_one_short_disk_is_enough_and_is_named(tmp_path):
    found = looking(["/proc", tmp_path], free_of(tmp_path) * 2).problem()
    assert found is not None
    assert "/proc" in found, "the first one that is short"
    assert "reserve_free_bytes" in found


def test_a_disk_that_cannot_be_looked_at_is_a_problem(tmp_path):
    found = looking([tmp_path / "gone"], 1).problem()
    assert found is not None
    assert "cannot be looked at" in found


def test_it_is_told_once_and_once_when_it_is_over(tmp_path):
    structlog.reset_defaults()
    disks = looking([tmp_path], free_of(tmp_path) * 2)
    with capture_logs() as lines:
        for _ in range(3):
            disks._looked_at = -disk.LOOK_S
            assert disks.problem() is not None
        disks.reserve_bytes = 0
        disks._looked_at = -disk.LOOK_S
        assert disks.problem() is None
    assert [line["event"] for line in lines] == ["disk_low", "disk_has_room_again"]


def test_between_two_looks_the_last_answer_counts(tmp_path):
    disks = looking([tmp_path], 0)
    assert disks.problem() is None
    disks.reserve_bytes = free_of(tmp_path) * 2
    assert disks.problem() is None
