"""A job is kept before it is acknowledged; what GitLab answers to that decides whether it goes on."""

from __future__ import annotations

import pytest

from fleet.demo.payload import make_job
from fleet.store.engine import StoreUnavailable

GOES_ON = {
    "200": {},
    "400": {"kind": "status", "status": 400},
    "409": {"kind": "status", "status": 409},
    "500 each time": {"kind": "status", "status": 500, "count": 5},
    "a page of HTML": {"kind": "html"},
    "a page that says 403": {"kind": "html", "status": 403},
    "a lost answer": {"kind": "lost_answer"},
    "a reset": {"kind": "reset_body"},
}


def take(room):
    reservation = room.reserve()
    return room.acknowledger.take(room.offer(), room.runner, reservation)


@pytest.mark.parametrize("fault", GOES_ON.values(), ids=GOES_ON.keys())
def test_a_job_goes_on_unless_gitlab_says_that_it_is_not_ours(room, gitlab, fault):
    if fault:
        gitlab.add_fault(endpoint="ack", **fault)
    gitlab.enqueue(make_job())
    assert take(room)
    assert room.jobs == ["waiting"]
    assert room.reservations == ["owed"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_job_that_is_not_ours_any_more_is_dropped_with_its_demand(room, gitlab, status):
    gitlab.add_fault("status", "ack", status=status)
    gitlab.enqueue(make_job())
    assert take(room)
    assert room.jobs == ["abandoned"]
    assert room.reservations == []
    assert room.rows("SELECT length(token) + length(payload) FROM jobs") == [(0,)]


def test_a_cancel_that_comes_with_the_acknowledgement_is_noted(room, gitlab):
    job = gitlab.enqueue(make_job())
    reservation, offer = room.reserve(), room.offer()
    gitlab.add_fault("status", "ack", status=200, headers={"Job-Status": "canceling"})
    assert room.acknowledger.take(offer, room.runner, reservation)
    assert room.rows("SELECT state, stop FROM jobs") == [("waiting", "cancel")]
    assert gitlab.job(job).state == "assigned"


def test_law_4_a_job_that_cannot_be_kept_is_not_acknowledged(room, gitlab, monkeypatch):
    job = gitlab.enqueue(make_job())
    reservation, offer = room.reserve(), room.offer()

    def no_room(_work):
        raise StoreUnavailable("no room")

    monkeypatch.setattr(room.store, "write", no_room)
    assert room.acknowledger.take(offer, room.runner, reservation) is False
    monkeypatch.undo()
    assert room.jobs == []
    assert gitlab.job(job).state == "assigned"


def test_law_4_what_a_killed_manager_left_unacknowledged_is_acknowledged_later(room, gitlab):
    job = gitlab.enqueue(make_job())
    offer = room.offer()
    room.acknowledger.server_of = lambda runner: pytest.fail("it was killed before that")
    with pytest.raises(pytest.fail.Exception):
        room.acknowledger.take(offer, room.runner, room.reserve())
    assert room.jobs == ["received"]
    room.acknowledger.server_of = room.servers.of
    assert room.acknowledger.activate().received == 0  # its poll may be about to do it
    room.clock.advance(6)
    assert room.acknowledger.activate().handed_out == 1
    room.wait()
    assert room.jobs == ["waiting"]
    assert gitlab.job(job).state == "running"


def test_law_4_a_job_that_gitlab_gave_to_others_meanwhile_is_dropped(room, gitlab):
    gitlab.set_knobs(ack_within_s=0.1)
    job = gitlab.enqueue(make_job())
    offer = room.offer()
    gitlab.wait_for(job, states=["pending"], timeout=10)
    assert room.acknowledger.take(offer, room.runner, room.reserve())
    assert room.jobs == ["abandoned"]
    assert room.reservations == []
