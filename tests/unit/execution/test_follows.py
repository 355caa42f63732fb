"""Frames of running jobs become bytes in the spool, also while a job is being followed anew."""

from __future__ import annotations

import pytest

from fleet.execution.follows import Follow, Follows
from fleet.store.spool import Spool


class Handlers:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def grew(self, key):
        self.told.append(("grew", key))

    def exited(self, follow, frame):
        self.told.append(("exited", follow.key))

    def broken(self, follow):
        self.told.append(("broken", follow.key))


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


@pytest.fixture
def handlers():
    return Handlers()


@pytest.fixture
def follows(spool, handlers):
    return Follows(spool, handlers)


def data(offset: int, lease: str = "l") -> dict[str, object]:
    return {"type": "data", "lease": lease, "offset": offset}


def followed(follows: Follows) -> Follow:
    follow = Follow(key="job", epoch=1, lease="l", instance="i", shift=2)
    follows.add(follow)
    return follow


def test_bytes_go_behind_the_prologue(follows, spool):
    spool.append("job", 0, b"PP")
    followed(follows)
    follows.take("i", data(0), b"abc")
    follows.take("i", data(3), b"de")
    assert spool.read("job", 0, 100) == b"PPabcde"


def test_bytes_that_come_again_are_kept_once(follows, spool):
    spool.append("job", 0, b"PP")
    followed(follows)
    follows.take("i", data(0), b"abc")
    follows.take("i", data(1), b"bcd")
    assert spool.read("job", 0, 100) == b"PPabcd"


def test_bytes_of_an_earlier_follow_do_not_stop_the_new_one(follows, spool, handlers):
    spool.append("job", 0, b"PP")
    follow = followed(follows)
    follows.take("i", data(50), b"from the old stream")
    assert follow.stopped is None
    assert spool.size("job") == 2
    follows.take("i", data(0), b"abc")
    assert spool.read("job", 0, 100) == b"PPabc"
    assert ("broken", "job") not in handlers.told


def test_a_gap_after_the_agent_has_answered_stops_the_follow(follows, spool, handlers):
    spool.append("job", 0, b"PP")
    follow = followed(follows)
    follow.settled = True
    follows.take("i", data(50), b"too far on")
    assert not follows.is_followed("l")
    assert handlers.told == [("broken", "job")]


def test_an_exit_is_handed_on_once(follows, handlers):
    followed(follows)
    follows.take("i", {"type": "exit", "lease": "l"}, b"")
    follows.take("i", {"type": "exit", "lease": "l"}, b"")
    assert handlers.told == [("exited", "job")]


def test_frames_of_another_machine_are_not_of_this_lease(follows, spool):
    followed(follows)
    follows.take("other", data(0), b"abc")
    assert spool.size("job") == 0
