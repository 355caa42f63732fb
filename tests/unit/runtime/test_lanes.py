"""Lanes: in order within a lane, side by side between lanes, and nothing that hangs holds up anybody else."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from fleet.runtime import lanes as module
from fleet.runtime.lanes import Lanes
from fleet.sdk import FleetError
from tests.acceptance.manager import wait_until


@pytest.fixture
def lanes():
    made = Lanes()
    yield made
    made.close(5)


class Gate:
    """Work that says when it begins and waits to be let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.open.wait(30)


def test_work_of_one_lane_runs_in_order_and_one_at_a_time(lanes):
    done, running, most = [], [], []

    def work(number: int) -> None:
        running.append(number)
        most.append(len(running))
        done.append(number)
        running.remove(number)

    for number in range(50):
        assert lanes.submit("a", f"w{number}", lambda n=number: work(n), timeout_s=10)
    wait_until(lambda: len(done) == 50, 10)
    assert done == list(range(50))
    assert max(most) == 1


def test_a_wider_lane_runs_so_many_at_once_and_no_more(lanes):
    gates = [Gate() for _ in range(4)]
    for number, gate in enumerate(gates):
        lanes.submit("a", f"w{number}", gate, timeout_s=30, width=3)
    for gate in gates[:3]:
        assert gate.begun.wait(5)
    assert not gates[3].begun.wait(0.2)
    gates[0].open.set()
    assert gates[3].begun.wait(5)
    for gate in gates:
        gate.open.set()


def test_a_lane_that_hangs_holds_up_no_other(lanes):
    stuck, done = Gate(), threading.Event()
    lanes.submit("slow", "w", stuck, timeout_s=30)
    assert stuck.begun.wait(5)
    lanes.submit("quick", "w", done.set, timeout_s=30)
    assert done.wait(5)
    stuck.open.set()


def test_the_same_piece_waits_or_runs_once(lanes):
    gate = Gate()
    assert lanes.submit("a", "same", gate, timeout_s=30)
    assert gate.begun.wait(5)
    assert not lanes.submit("a", "same", gate, timeout_s=30)
    assert lanes.submit("b", "same", lambda: None, timeout_s=30), "in another lane it is another piece"
    gate.open.set()
    wait_until(lambda: lanes.busy("a") == 0, 5)
    assert lanes.submit("a", "same", lambda: None, timeout_s=30)


def test_a_full_lane_takes_no_more():
    lanes = Lanes(bound=2)
    gate = Gate()
    lanes.submit("a", "running", gate, timeout_s=30)
    assert gate.begun.wait(5)
    assert [lanes.submit("a", f"w{number}", lambda: None, timeout_s=30) for number in range(3)] == [True, True, False]
    gate.open.set()
    lanes.close(5)


def test_a_piece_that_takes_too_long_is_left_behind_and_the_lane_goes_on(lanes):
    stuck, done = Gate(), threading.Event()
    with capture_logs() as lines:
        lanes.submit("a", "stuck", stuck, timeout_s=0.1)
        assert stuck.begun.wait(5)
        lanes.submit("a", "next", done.set, timeout_s=30)
        assert done.wait(10)
    assert any(line["event"] == "work_hung" and line["work"] == "stuck" for line in lines)
    stuck.open.set()
    wait_until(lambda: lanes.busy("a") == 0, 5)


def test_a_lane_whose_pieces_all_hang_is_shut_until_one_returns(lanes):
    gates = [Gate() for _ in range(module.LEFT_BEHIND + 2)]
    for number, gate in enumerate(gates):
        lanes.submit("a", f"w{number}", gate, timeout_s=0.05)
    for gate in gates[: module.LEFT_BEHIND + 1]:
        assert gate.begun.wait(20)
    last = gates[-1]
    assert not last.begun.wait(2.5), "no thread more is left behind in this lane"
    gates[0].open.set()
    assert last.begun.wait(10)
    for gate in gates:
        gate.open.set()


def test_what_a_piece_raises_is_told_and_the_lane_goes_on(lanes):
    def expected() -> None:
        raise FleetError("the database is away")

    def unexpected() -> None:
        raise ZeroDivisionError

    done = threading.Event()
    with capture_logs() as lines:
        lanes.submit("a", "one", expected, timeout_s=5)
        lanes.submit("a", "two", unexpected, timeout_s=5)
        lanes.submit("a", "three", done.set, timeout_s=5)
        assert done.wait(5)
    told = {line["event"]: line for line in lines}
    assert told["work_postponed"]["error"] == "the database is away"
    assert told["work_failed"]["work"] == "two"


def test_closing_forgets_what_waits_and_leaves_behind_what_hangs():
    lanes = Lanes()
    stuck, ran = Gate(), threading.Event()
    lanes.submit("a", "stuck", stuck, timeout_s=30)
    assert stuck.begun.wait(5)
    lanes.submit("a", "waiting", ran.set, timeout_s=30)
    lanes.close(0.2)
    stuck.open.set()
    assert not ran.wait(0.3)
    assert not lanes.submit("b", "late", ran.set, timeout_s=30)


def test_threads_are_used_again(lanes):
    seen = set()
    for number in range(20):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            seen.add(threading.get_ident())
            done.set()

        lanes.submit("a", f"w{number}", work, timeout_s=5)
        assert done.wait(5)
        wait_until(lambda: lanes.busy("a") == 0, 5)
    assert len(seen) <= 3
