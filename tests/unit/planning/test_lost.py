"""A machine is lost when complete listings say so, not when one of them hiccups."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fleet.model.ids import InstanceId
from fleet.planning.lost import Known, look
from fleet.sdk.provider import Machine, MachineState
from tests.unit.planning.rows import MINUTE, NOW

LAG = timedelta(seconds=30)


def known(number=1, *, missed=0, known_at=NOW - MINUTE):
    return Known(instance_id=InstanceId(f"i-{number}"), machine_id=f"m-{number}", known_at=known_at, missed=missed)


def listing(*machines):
    return {machine.machine_id: machine for machine in machines}


def machine(number=1, state=MachineState.RUNNING, reason=None):
    return Machine(machine_id=f"m-{number}", state=state, tags={}, reason=reason)


def test_a_listed_machine_is_seen_and_its_misses_are_forgotten():
    seen = look([known(missed=1)], listing(machine()), begun_at=NOW, lag=LAG)
    assert list(seen.seen) == ["i-1"]
    assert not seen.missed
    assert not seen.absent


def test_one_missed_listing_is_remembered_and_loses_nothing():
    seen = look([known()], {}, begun_at=NOW, lag=LAG)
    assert seen.missed == {"i-1": 1}
    assert not seen.absent


def test_the_second_missed_listing_in_a_row_means_absence():
    (absent,) = look([known(missed=1)], {}, begun_at=NOW, lag=LAG).absent
    assert (absent.instance_id, absent.slug) == ("i-1", "machine_missing")
    assert absent.reason == "machine m-1 is missing from 2 complete listings in a row"


def test_a_young_machine_may_be_missing_while_listings_lag():
    young = known(known_at=NOW - LAG + timedelta(seconds=1), missed=1)
    seen = look([young], {}, begun_at=NOW, lag=LAG)
    assert not seen.missed
    assert not seen.absent
    assert look([known(known_at=NOW - LAG)], {}, begun_at=NOW, lag=LAG).missed == {"i-1": 1}


@pytest.mark.parametrize("state", [MachineState.GONE, MachineState.FAILED])
def test_what_the_provider_says_for_certain_needs_no_second_listing(state):
    (absent,) = look([known()], listing(machine(state=state, reason="spot reclaimed")), begun_at=NOW, lag=LAG).absent
    assert absent.slug == f"machine_{state}"
    assert absent.reason == f"the provider lists machine m-1 as {state}: spot reclaimed"
    (bare,) = look([known()], listing(machine(state=state)), begun_at=NOW, lag=LAG).absent
    assert bare.reason == f"the provider lists machine m-1 as {state}"


@pytest.mark.parametrize("state", [MachineState.CREATING, MachineState.STOPPED, MachineState.DELETING])
def test_a_machine_in_another_state_is_still_there(state):
    assert not look([known(missed=1)], listing(machine(state=state)), begun_at=NOW, lag=LAG).absent


def test_each_instance_is_judged_alone_and_strangers_are_not_judged():
    rows = [known(3, missed=1), known(1), known(2)]
    seen = look(rows, listing(machine(2), machine(9)), begun_at=NOW, lag=LAG)
    assert (list(seen.seen), dict(seen.missed)) == (["i-2"], {"i-1": 1, "i-3": 2})
    assert [absent.instance_id for absent in seen.absent] == ["i-3"]
