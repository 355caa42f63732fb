"""Supervisors and `serve` wake each other by named pipes that clean up after the dead."""

from __future__ import annotations

import os
import pathlib

from fleet.agent.wakes import OVERFLOW_BYTES, Doors, Ear, knock


def test_a_knock_is_heard_by_every_ear_also_by_those_that_came_later(tmp_path: pathlib.Path) -> None:
    doors = Doors(str(tmp_path))
    doors.knock("early")
    ears = []
    for number in range(3):
        ears.append(Ear(str(tmp_path / str(number))))
        doors.knock(f"lease-{number}")
    assert [ear.heard()[0] for ear in ears] == [
        {"lease-0", "lease-1", "lease-2"},
        {"lease-1", "lease-2"},
        {"lease-2"},
    ]
    for ear in ears:
        ear.close()
    assert list(tmp_path.iterdir()) == []


def test_the_pipe_of_one_that_was_killed_is_removed(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "dead")
    doors = Doors(str(tmp_path))
    doors.knock("x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_pipe_stops_nobody_and_tells_its_reader_to_look_everywhere(tmp_path: pathlib.Path) -> None:
    ear = Ear(str(tmp_path / "ear"))
    for _ in range(3000):
        assert knock(ear.path, "a-lease-with-a-rather-long-name")
    names, lost = ear.heard()
    assert names >= {"a-lease-with-a-rather-long-name"}
    assert lost
    assert OVERFLOW_BYTES < 65536
    ear.close()


def test_nothing_heard_is_nothing(tmp_path: pathlib.Path) -> None:
    ear = Ear(str(tmp_path / "ear"))
    assert ear.heard() == (set(), False)
    ear.close()


def test_a_knock_where_nobody_is_is_no_error(tmp_path: pathlib.Path) -> None:
    assert not knock(str(tmp_path / "nobody"), "x")
