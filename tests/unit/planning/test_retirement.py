"""Which machines go, when, and why; and which stay although they might."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet.model.plan import Because
from fleet.planning.planner import plan
from tests.unit.planning.rows import HOUR, MINUTE, NOW, S, apply, busy, created, ids, instance, job, jobs, policy, pool

IDLE = 20 * MINUTE
PREEMPTIVE = policy(preemptive_mode=True)


def slugs(actions):
    return [str(action.slug) for action in actions]


# Law 1


@pytest.mark.parametrize(
    "more",
    [
        {"limits": {"policies": ()}},
        {"limits": {"retired": True}},
        {"limits": {"settings_version": 9}},
        {"limits": {"max_instances": 1}},
        {"limits": {"max_age": MINUTE}},
        {"limits": {"max_use_count": 1}},
        {"row": {"unhealthy": "no answer"}},
        {"row": {"state": S.DRAINING}},
        {"row": {"state_by": NOW - HOUR}},
    ],
    ids=["no policy", "retired", "outdated", "surplus", "age", "uses", "unhealthy", "draining", "late"],
)
def test_law_1_no_leased_instance_is_ever_removed(more):
    rows = [busy(name, idle=HOUR, **more.get("row", {})) for name in ("i-1", "i-2")]
    made = plan(pool(*rows, **more.get("limits", {})))
    assert not made.deletes
    assert not any(drain.only_idle for drain in made.drains)


def test_law_1_a_machine_that_a_poll_counts_on_goes_when_the_poll_has_returned():
    row = instance("i-1", idle=IDLE)
    held = plan(pool(row, asking=1, policies=(PREEMPTIVE,)))
    assert held.changes_nothing
    assert held.ask_limit == 0, "no new poll is begun for its slot"
    returned = plan(pool(row, asking=0, policies=(PREEMPTIVE,)))
    assert ids(returned.drains) == ids(returned.deletes) == ["i-1"]


def test_law_1_what_is_owed_keeps_the_machine_it_is_matched_with():
    made = plan(pool(instance("i-1", idle=IDLE), waiting=jobs(1)))
    assert [assign.instance_id for assign in made.assigns] == ["i-1"]
    assert not made.drains


def test_law_1_polls_may_count_on_room_where_jobs_come_first():
    made = plan(pool(instance("i-1", idle=IDLE), asking=1))
    assert ids(made.deletes) == ["i-1"], "a new machine could be made for the poll's job"
    tight = plan(pool(instance("i-1", idle=IDLE), asking=1, max_instances=1))
    assert tight.changes_nothing, "there is no room for one until this one is gone"
    assert tight.ask_limit == 0


def test_law_1_outdated_machines_go_only_as_far_as_polls_are_covered():
    rows = [instance(f"i-{n}") for n in range(3)]
    made = plan(pool(*rows, asking=2, policies=(PREEMPTIVE,), settings_version=2))
    assert ids(made.drains) == ["i-0"]
    assert made.ask_limit == 0


# Reasons to go


def test_idle_machines_go_after_idle_time_the_longest_idle_first():
    rows = [instance(f"i-{n}", idle=n * MINUTE) for n in (9, 10, 12, 11)]
    made = plan(pool(*rows))
    assert ids(made.drains) == ids(made.deletes) == ["i-12", "i-11", "i-10"]
    assert set(slugs(made.drains)) == {"idle"}
    assert made.drains[0].reason == "it has been idle for 12m0s (idle_time 10m0s); 4 free slots, 0 wanted"
    assert made.next_at == NOW + MINUTE


def test_idle_machines_stay_up_to_the_idle_target():
    rows = [instance(f"i-{n}", idle=IDLE + n * MINUTE) for n in range(4)]
    made = plan(pool(*rows, policies=(policy(idle_count=3),)))
    assert ids(made.drains) == ["i-3"]
    assert made.next_at is None, "time alone removes none of the others"


def test_a_machine_whose_slots_are_partly_wanted_stays():
    rows = [instance("i-1", idle=IDLE), busy("i-2")]
    assert plan(pool(*rows, capacity_per_instance=2, policies=(policy(idle_count=2),))).changes_nothing
    assert ids(plan(pool(*rows, capacity_per_instance=2, policies=(policy(idle_count=1),))).drains) == ["i-1"]


def test_a_machine_never_used_is_idle_since_it_became_ready():
    fresh = instance("i-1", idle=IDLE, idle_since=None)
    assert ids(plan(pool(fresh)).deletes) == ["i-1"]


def test_coming_machines_do_not_push_out_ready_ones():
    made = plan(pool(instance("i-1", idle=IDLE), instance("i-2", S.BOOTING), policies=(policy(idle_count=1),)))
    assert made.changes_nothing


def test_nothing_goes_for_idleness_while_a_job_waits_for_a_machine():
    rows = [instance("i-1", idle=IDLE), instance("i-2", S.BOOTING)]
    waits = [job(1, avoid=["i-1"])]
    assert plan(pool(*rows, waiting=waits)).changes_nothing


def test_with_idle_time_zero_a_machine_goes_right_after_its_job():
    made = plan(pool(instance("i-1", idle=timedelta(0)), policies=(policy(idle_time=timedelta(0)),)))
    assert ids(made.deletes) == ["i-1"]


def test_without_a_matching_policy_leases_stay_and_free_machines_keep_the_longest_idle_time():
    night = (policy(periods=("* 0 * * *",), idle_count=9), policy(periods=("* 1 * * *",), idle_time=15 * MINUTE))
    rows = [busy("i-1"), instance("i-2", idle=14 * MINUTE), instance("i-3", idle=16 * MINUTE)]
    made = plan(pool(*rows, policies=night))
    assert (made.policy, made.idle_target, made.preemptive) == (None, 0, False)
    assert ids(made.deletes) == ["i-3"]
    assert made.next_at == NOW + MINUTE


def test_the_next_policy_wakes_the_planner():
    made = plan(pool(policies=(policy(), policy(periods=("30-59 12 * * *",)))))
    assert made.next_at == NOW + 30 * MINUTE


def test_unhealthy_machines_go_at_once_and_drain_under_leases():
    made = plan(pool(busy("i-1", unhealthy="no answer"), instance("i-2", unhealthy="disk full"), asking=9))
    assert ids(made.drains) == ["i-1", "i-2"]
    assert ids(made.deletes) == ["i-2"]
    assert made.deletes[0].reason == "it is unhealthy: disk full"


def test_machines_over_age_go_and_those_under_it_wake_the_planner():
    rows = [instance("i-1", created_at=NOW - 2 * HOUR), instance("i-2", created_at=NOW - 2 * HOUR + MINUTE)]
    made = plan(pool(*rows, max_age=2 * HOUR, policies=(policy(idle_count=1),)))
    assert ids(made.deletes) == ["i-1"]
    assert made.deletes[0].reason == "it is 2h0m0s old (max_age 2h0m0s)"
    assert made.next_at == NOW + MINUTE


def test_used_up_machines_go():
    (delete,) = plan(pool(instance("i-1", use_count=3), max_use_count=3)).deletes
    assert (delete.slug, delete.reason) == (Because.USED_UP, "it has been given 3 jobs (max_use_count 3)")


def test_outdated_machines_go_free_ones_at_once_busy_ones_after_their_jobs():
    rows = [busy("i-1"), instance("i-2"), instance("i-3", S.BOOTING), instance("i-4", settings_version=2)]
    made = plan(pool(*rows, settings_version=2, policies=(policy(idle_count=1),)))
    assert ids(made.drains) == ["i-1", "i-2"]
    assert ids(made.deletes) == ["i-2", "i-3"]
    assert made.drains[0].reason == "it was made for settings version 1, the pool has version 2"
    assert not made.drains[0].only_idle


def test_an_outdated_machine_that_a_job_waits_for_is_not_thrown_away():
    made = plan(pool(instance("i-1", S.BOOTING), waiting=jobs(1), settings_version=2))
    assert made.changes_nothing
    assert slugs(made.waits) == ["machine_pending"]


def test_the_reasons_come_in_their_order():
    rows = [
        instance("i-1", idle=IDLE),
        instance("i-2", use_count=5),
        instance("i-3", created_at=NOW - 9 * HOUR),
        instance("i-4", settings_version=0),
        instance("i-5", unhealthy="no answer"),
    ]
    made = plan(pool(*rows, max_use_count=5, max_age=8 * HOUR))
    assert slugs(made.drains) == ["unhealthy", "outdated", "over_age", "used_up", "idle"]


def test_after_a_lower_max_instances_the_surplus_goes_youngest_coming_then_longest_idle():
    rows = [
        instance("i-1", S.CREATING, idle=3 * MINUTE),
        instance("i-2", S.REQUESTED, idle=2 * MINUTE),
        instance("i-3", idle=4 * MINUTE),
        instance("i-4", idle=5 * MINUTE),
        busy("i-5"),
    ]
    made = plan(pool(*rows, max_instances=2, policies=(policy(idle_count=3),)))
    assert ids(made.deletes) == ["i-2", "i-1", "i-4"]
    assert set(slugs(made.deletes)) == {"surplus"}
    assert made.deletes[0].reason == "the pool has 5 machines and may have 2"
    assert plan(pool(*rows, max_instances=4, policies=(policy(idle_count=9),))).deletes[0].instance_id == "i-2"


def test_what_is_on_its_way_out_is_no_surplus_any_more():
    rows = [
        instance("i-1", S.DELETING),
        busy("i-2", state=S.DRAINING),
        busy("i-3", unhealthy="no answer"),
        instance("i-4", S.BOOTING, state_by=NOW),
        instance("i-5"),
    ]
    assert "surplus" not in slugs(plan(pool(*rows, max_instances=1)).deletes)
    assert ids(plan(pool(*rows, instance("i-6", idle=5 * MINUTE), max_instances=1)).drains)[-1] == "i-6"


def test_surplus_and_idleness_together_leave_the_idle_target():
    rows = [instance(f"i-{n}", idle=IDLE + n * MINUTE) for n in range(5)]
    made = plan(pool(*rows, max_instances=4, policies=(policy(idle_count=2),)))
    assert slugs(made.drains) == ["surplus", "idle", "idle"]


def test_a_retired_pool_empties_asks_no_more_and_still_runs_what_it_owes():
    rows = [busy("i-1"), instance("i-2"), instance("i-3", S.BOOTING), instance("i-4", S.STOPPED)]
    made = plan(pool(*rows, retired=True, policies=(policy(idle_count=9),)))
    assert ids(made.deletes) == ["i-4", "i-2", "i-3"]
    assert set(slugs(made.deletes)) == {"retired"}
    assert (made.ask_limit, made.idle_target, made.next_at) == (0, 0, NOW + 5 * MINUTE)
    owing = plan(pool(busy("i-1"), waiting=jobs(1), retired=True))
    assert created(owing) == 1
    assert owing.ask_limit == 0


def test_a_retired_pool_waits_for_the_polls_in_the_air():
    assert plan(pool(instance("i-1"), asking=1, retired=True)).changes_nothing


def test_given_machines_never_go_for_idleness_but_for_faults():
    rows = [instance("i-1", idle=9 * HOUR), instance("i-2", unhealthy="no answer")]
    made = plan(pool(*rows, fixed_inventory=True, max_instances=1))
    assert ids(made.deletes) == ["i-2"]
    assert made.ask_limit == 1


# Draining, late, frozen


def test_a_draining_machine_is_deleted_when_its_last_lease_has_ended():
    rows = [
        busy("i-1", state=S.DRAINING),
        instance("i-2", S.DRAINING, drain_reason="it is unhealthy: no answer"),
        instance("i-3", S.DRAINING),
    ]
    made = plan(pool(*rows))
    assert ids(made.deletes) == ["i-2", "i-3"]
    assert made.deletes[0].reason == "it has no lease any more; it drained because it is unhealthy: no answer"
    assert made.deletes[1].reason.endswith("because a person said so")


@pytest.mark.parametrize("state", [S.REQUESTED, S.CREATING, S.BOOTING, S.PREPARING, S.STARTING, S.STOPPING])
def test_a_machine_past_its_deadline_is_deleted_and_replaced(state):
    late = instance("i-1", state, idle=11 * MINUTE, state_by=NOW)
    made = plan(pool(late, waiting=jobs(1)))
    assert (ids(made.deletes), slugs(made.deletes)) == (["i-1"], ["overdue"])
    assert made.deletes[0].reason == f"it has been {state} for 11m0s, its deadline was 2026-03-02T12:00:00Z"
    assert created(made) == 1
    before = plan(pool(replace(late, state_by=NOW + MINUTE)))
    assert before.next_at == NOW + MINUTE
    assert before.changes_nothing


def test_a_machine_found_bad_before_it_was_ready_is_deleted():
    (delete,) = plan(pool(instance("i-1", S.PREPARING, unhealthy="wrong host key"))).deletes
    assert (delete.slug, delete.reason) == (Because.UNHEALTHY, "it is unhealthy: wrong host key")


def test_a_deletion_that_takes_long_is_left_to_those_who_ask_again():
    assert plan(pool(instance("i-1", S.DELETING, state_by=NOW - HOUR))).changes_nothing


def test_a_stopped_machine_stays_while_its_pool_does():
    assert plan(pool(instance("i-1", S.STOPPED))).changes_nothing


def test_after_a_jump_of_the_clock_one_round_removes_nothing_and_replaces_nothing():
    rows = [
        instance("i-1", idle=HOUR),
        instance("i-2", created_at=NOW - 9 * HOUR),
        instance("i-3", S.BOOTING, state_by=NOW - HOUR),
        instance("i-4", S.DRAINING),
        instance("i-5", unhealthy="no answer"),
    ]
    frozen = pool(*rows, waiting=[job(1), job(2), job(3)], max_age=8 * HOUR, frozen=True)
    made = plan(frozen)
    assert not made.drains
    assert not made.deletes
    assert len(made.assigns) == 2
    assert not made.creates, "the machine that seems late is still counted on"
    assert made.next_at == NOW
    thawed = plan(replace(apply(frozen, made), frozen_removals=False))
    assert {"i-3", "i-4", "i-5"} <= set(ids(thawed.deletes))


# How many polls


def test_preemptive_pools_ask_for_as_many_jobs_as_ready_slots_are_free():
    rows = [busy("i-1"), instance("i-2"), instance("i-3", S.BOOTING)]
    assert plan(pool(*rows, capacity_per_instance=2, policies=(policy(idle_count=1),))).ask_limit == 3
    assert plan(pool(*rows, waiting=jobs(2), capacity_per_instance=2, policies=(policy(idle_count=1),))).ask_limit == 1


def test_other_pools_ask_for_what_is_coming_and_for_what_has_room_too():
    rows = [busy("i-1"), instance("i-2"), instance("i-3", S.BOOTING), instance("i-4", S.DELETING)]
    made = plan(pool(*rows, capacity_per_instance=2, max_instances=5))
    assert made.ask_limit == 1 + 2 + 2 + 2
    assert plan(pool(*rows, waiting=jobs(6), capacity_per_instance=2, max_instances=5)).ask_limit == 1


def test_a_pool_without_limit_asks_as_much_as_it_is_let():
    assert plan(pool()).ask_limit >= 1_000_000


def test_a_preemptive_pool_without_idle_target_gets_no_machine_and_asks_for_nothing():
    assert plan(pool(policies=(PREEMPTIVE,))).ask_limit == 0
