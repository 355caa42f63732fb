"""The tables of states say what may follow what, and nothing else may."""

from __future__ import annotations

import pytest

from fleet.model import lifecycle
from fleet.model.lifecycle import INSTANCE, JOB, LEASE, IllegalTransition, InstanceState, JobState, LeaseState


@pytest.mark.parametrize("table", [INSTANCE, LEASE, JOB])
def test_every_state_leads_to_an_end_and_every_edge_has_a_comment(table):
    ends = {state for state, nexts in table.items() if not nexts}
    for state in table:
        reached, todo = set(), [state]
        while todo:
            at = todo.pop()
            reached.add(at)
            todo += [n for n in table[at] if n not in reached]
        assert reached & ends, f"{state} never ends"
    assert all(reason for nexts in table.values() for reason in nexts.values())


@pytest.mark.parametrize(
    ("table", "states"), [(INSTANCE, InstanceState), (LEASE, LeaseState), (JOB, JobState)], ids=["i", "l", "j"]
)
def test_every_state_is_in_its_table(table, states):
    assert set(table) == set(states)


def test_a_leased_state_never_jumps_to_gone():
    for state, nexts in INSTANCE.items():
        if state is not InstanceState.DELETING:
            assert InstanceState.GONE not in nexts, "gone is only ever confirmed absence"


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (lifecycle.check_instance, InstanceState.READY, InstanceState.GONE),
        (lifecycle.check_lease, LeaseState.RELEASED, LeaseState.RUNNING),
        (lifecycle.check_job, JobState.RUNNING, JobState.WAITING),
    ],
)
def test_an_illegal_change_raises_and_names_the_object(check, old, new):
    with pytest.raises(IllegalTransition, match="i-1 may not go from"):
        check("i-1", old, new)


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (lifecycle.check_instance, InstanceState.READY, InstanceState.DRAINING),
        (lifecycle.check_lease, LeaseState.RUNNING, LeaseState.CLEANING),
        (lifecycle.check_job, JobState.STARTING, JobState.WAITING),
    ],
)
def test_a_legal_change_is_let_through(check, old, new):
    check("i-1", old, new)
