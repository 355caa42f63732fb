"""A poll has a slot before it begins, and gives it back whatever GitLab answers (law 3)."""

from __future__ import annotations

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

NOTHING = {
    "204": {},
    "403": {"kind": "status", "status": 403},
    "404": {"kind": "status", "status": 404},
    "409": {"kind": "status", "status": 409},
    "429 for a long time": {"kind": "status", "status": 429, "headers": {"Retry-After": "3000"}},
    "503 each time": {"kind": "status", "status": 503, "count": 5},
    "a page of HTML": {"kind": "html"},
    "a redirection": {"kind": "status", "status": 301, "headers": {"Location": "https://elsewhere.invalid/"}},
    "a reset": {"kind": "reset_body"},
}


@pytest.mark.parametrize("fault", NOTHING.values(), ids=NOTHING.keys())
def test_law_3_a_poll_that_brings_no_job_gives_its_slot_back(room, gitlab, fault):
    if fault:
        gitlab.add_fault(endpoint="request", **fault)
    assert room.ask() == 1
    assert room.reservations == []
    (state,) = room.intake.states()
    assert state.polls == 0
    assert state.failures == (1 if fault.get("status") == 403 else 0)


def test_law_3_a_job_keeps_the_slot_that_was_promised_for_it(room, gitlab):
    gitlab.enqueue(make_job())
    assert room.ask() == 1
    assert room.reservations == ["owed"]
    assert room.jobs == ["waiting"]


def test_law_3_an_answer_that_is_lost_gives_the_slot_back(room, gitlab):
    gitlab.set_knobs(ack_within_s=0)
    gitlab.add_fault("lost_answer", "request")
    gitlab.enqueue(make_job())
    assert room.ask() == 1
    assert room.reservations == []
    assert room.jobs == []


def test_law_3_a_job_that_cannot_be_read_gives_the_slot_back(room, gitlab):
    gitlab.add_fault("truncated_json", "request")
    job = gitlab.enqueue(make_job())
    room.ask()
    assert room.reservations == []
    assert room.jobs == []
    view = gitlab.job(job)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")


def test_law_3_the_stop_sign_ends_a_held_poll_and_gives_its_slot_back(room, gitlab):
    gitlab.set_knobs(hold_s=60)
    room.ask()  # brings what to hold by
    room.clock.advance(2)
    held = gitlab.add_fault("delay", "request", count=None)
    assert room.intake.activate().asked == 1
    wait_until(lambda: gitlab.fault_struck(held), 10, "the held poll")
    assert room.reservations == ["asking"]
    room.cancel.set()
    wait_until(lambda: not room.lanes.busy(f"poll:{room.key}"), 10, "the end of the poll")
    assert room.reservations == []


def test_without_a_slot_nothing_is_asked(make_room, gitlab):
    room = make_room(slots=0)
    polls = gitlab.add_fault("delay", "request", count=None)
    gitlab.enqueue(make_job())
    assert room.ask() == 0
    assert gitlab.fault_struck(polls) == 0


def test_the_next_poll_follows_at_once_after_a_job_and_else_after_check_interval(room, gitlab):
    gitlab.enqueue(make_job())
    assert room.ask() == 1
    assert room.ask() == 2  # while jobs flow, more than one
    assert room.ask() == 0
    room.clock.advance(1.1)
    assert room.ask() == 1


def test_strict_check_interval_waits_after_a_job_too(make_room, gitlab):
    room = make_room(runner_keys="strict_check_interval = true")
    gitlab.enqueue(make_job())
    assert room.ask() == 1
    assert room.ask() == 0
    room.clock.advance(1.1)
    assert room.ask() == 1


def test_a_job_in_hand_counts_against_the_limit(make_room, gitlab):
    room = make_room(runner_keys="limit = 1")
    gitlab.enqueue(make_job())
    gitlab.enqueue(make_job())
    assert room.ask() == 1
    room.clock.advance(10)
    assert room.ask() == 0
    assert room.jobs == ["waiting"]


def test_three_refusals_silence_the_runner_and_a_reload_forgives(room, gitlab):
    gitlab.set_runner(room.at_gitlab["id"], revoked=True)
    for _ in range(3):
        assert room.ask() == 1
        room.clock.advance(2)
    assert room.ask() == 0
    room.intake.forgive()
    gitlab.set_runner(room.at_gitlab["id"], revoked=False)
    assert room.ask() == 1


def test_a_success_between_refusals_begins_the_count_anew(room, gitlab):
    for status in (403, 403, None, 403, 403, None):
        if status:
            gitlab.add_fault("status", "request", status=status)
        assert room.ask() == 1
        room.clock.advance(2)
    assert room.intake.states()[0].unhealthy_until is None


def test_a_wait_that_gitlab_asked_for_is_kept_to_the_second(room, gitlab):
    gitlab.add_fault("status", "request", status=429, headers={"Retry-After": "100"})
    assert room.ask() == 1
    room.clock.advance(99)
    assert room.ask() == 0
    room.clock.advance(2)
    assert room.ask() == 1


def test_nothing_is_asked_while_no_job_may_be_taken(room, gitlab):
    room.intake.may_take = lambda: "the disk is full"
    assert room.ask() == 0
    room.intake.may_take = lambda: None
    assert room.ask() == 1


def test_a_runner_that_the_file_no_longer_names_asks_no_more(room):
    room.forget_runner()
    assert room.ask() == 0
