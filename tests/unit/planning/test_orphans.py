"""Law 6: what carries our tags and nobody knows is deleted, after a second look; all else is left alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fleet.planning.orphans import sweep
from fleet.sdk.provider import TAG_POOL, TAG_REQUEST, TAG_STORE, Machine, MachineState
from tests.unit.planning.rows import NOW

LAG = timedelta(seconds=30)


def machine(name="m-1", *, store="ours", request="r-1", state=MachineState.RUNNING):
    tags = {TAG_STORE: store, TAG_POOL: "linux"} | ({TAG_REQUEST: request} if request else {})
    return Machine(machine_id=name, state=state, tags=tags)


def swept(*machines, at=NOW, before=None, known=(), requests=(), sweeping=True):
    return sweep(
        machines,
        store_id="ours",
        begun_at=at,
        lag=LAG,
        known_machines=set(known),
        open_requests=set(requests),
        suspects=before.suspects if before else {},
        sweeping=sweeping,
    )


def test_law_6_an_unknown_machine_of_ours_is_deleted_at_the_second_listing():
    once = swept(machine())
    assert not once.delete
    twice = swept(machine(), at=NOW + LAG, before=once)
    (orphan,) = twice.delete
    assert (orphan.machine_id, orphan.pool, orphan.request) == ("m-1", "linux", "r-1")
    assert orphan.reason == "it carries our tags and no row knows it, since 2026-03-02T12:00:00Z"
    assert not twice.report


def test_law_6_before_the_visibility_lag_has_passed_nothing_is_deleted():
    twice = swept(machine(), at=NOW + LAG / 2, before=swept(machine()))
    assert not twice.delete
    assert swept(machine(), at=NOW + LAG, before=twice).delete


def test_law_6_one_listing_judged_twice_is_one_listing():
    again = swept(machine(), before=swept(machine()))
    assert again.suspects["m-1"].listings == 1


@pytest.mark.parametrize("what", [{"known": ["m-1"]}, {"requests": ["r-1"]}])
def test_law_6_a_machine_with_a_row_or_an_open_request_is_no_orphan(what):
    once = swept(machine())
    known = swept(machine(), at=NOW + LAG, before=once, **what)
    assert not known.delete
    assert not known.suspects, "suspicion starts afresh"


def test_law_6_a_member_without_request_tag_is_an_orphan_unless_its_machine_is_known():
    lone = machine(request="")
    assert swept(lone, at=NOW + LAG, before=swept(lone)).delete[0].request == ""
    assert not swept(lone, at=NOW + LAG, before=swept(lone), known=["m-1"]).delete


def test_law_6_a_machine_that_was_missing_in_between_is_suspected_afresh():
    gone = swept(at=NOW + LAG, before=swept(machine()))
    back = swept(machine(), at=NOW + 2 * LAG, before=gone)
    assert not back.delete
    assert back.suspects["m-1"].since == NOW + 2 * LAG


@pytest.mark.parametrize("state", [MachineState.GONE, MachineState.DELETING])
def test_what_is_ending_already_is_left_alone(state):
    ending = machine(state=state)
    assert not swept(ending, at=NOW + LAG, before=swept(ending)).delete


def test_law_6_other_stores_machines_are_reported_and_never_touched():
    theirs = machine(store="theirs")
    first = swept(theirs)
    later = swept(theirs, at=NOW + LAG, before=first)
    assert not later.delete
    assert [orphan.reason for orphan in first.report + later.report] == ["it belongs to another store (theirs)"] * 2


def test_law_6_while_sweeping_is_off_our_orphans_are_reported_only():
    off = swept(machine(), at=NOW + LAG, before=swept(machine(), sweeping=False), sweeping=False)
    assert not off.delete
    assert [orphan.machine_id for orphan in off.report] == ["m-1"]
    assert swept(machine(), at=NOW + 2 * LAG, before=off).delete, "they are deleted once a person has confirmed"
