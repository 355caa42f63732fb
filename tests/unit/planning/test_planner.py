"""What planning decides, one situation at a time; the reasons are part of the decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet.model.plan import Because
from fleet.model.policy import Placement, Throttle
from fleet.planning.planner import plan
from tests.unit.planning.rows import (
    HOUR,
    MINUTE,
    NOW,
    S,
    apply,
    busy,
    cool,
    created,
    ids,
    instance,
    job,
    jobs,
    policy,
    pool,
    sites,
)

SECOND = timedelta(seconds=1)
WARM = (policy(idle_count=2),)


def slugs(actions):
    return [str(action.slug) for action in actions]


def given(made):
    return [(assign.job, assign.instance_id, assign.slot) for assign in made.assigns]


# Growing


def test_an_empty_pool_with_nothing_to_do_does_nothing():
    made = plan(pool())
    assert made.changes_nothing
    assert (made.idle_target, made.desired_instances, made.policy) == (0, 0, 0)


def test_waiting_jobs_make_machines_enough_for_their_slots():
    (create,) = plan(pool(waiting=jobs(5), capacity_per_instance=2)).creates
    assert (create.placement, create.count, create.slug) == ("default", 3, Because.JOBS_WAIT)
    assert create.reason == "5 waiting jobs without a slot"


def test_the_idle_target_makes_machines_before_any_job():
    (create,) = plan(pool(policies=WARM)).creates
    assert (create.count, create.slug, create.reason) == (
        2,
        Because.IDLE_TARGET,
        "2 free slots short of the idle target",
    )


def test_jobs_and_idle_target_are_wanted_together():
    (create,) = plan(pool(waiting=jobs(1), policies=WARM)).creates
    assert (create.count, create.slug) == (3, Because.JOBS_WAIT)
    assert create.reason == "1 waiting job without a slot and 2 free slots short of the idle target"


@pytest.mark.parametrize("state", [S.REQUESTED, S.CREATING, S.BOOTING, S.PREPARING, S.STARTING])
def test_machines_on_their_way_count_as_coming_supply(state):
    made = plan(pool(instance("i-1", state), waiting=jobs(1)))
    assert not made.creates
    (wait,) = made.waits
    assert (wait.slug, wait.until) == (Because.MACHINE_PENDING, NOW + 5 * MINUTE)
    assert wait.reason == f"waits for machine i-1, which is {state} since 2026-03-02T11:59:00Z"


def test_a_machine_that_runs_one_job_only_brings_one_slot():
    assert created(plan(pool(waiting=jobs(4), capacity_per_instance=4, max_use_count=1))) == 4


def test_scale_factor_grows_the_target_with_the_slots_in_use():
    grows = policy(scale_factor=0.5, idle_count=1)
    targets = [
        plan(pool(*(busy(f"i-{n}") for n in range(used)), policies=(grows,))).idle_target for used in (0, 1, 2, 3, 9)
    ]
    assert targets == [1, 1, 1, 2, 5]


def test_waiting_jobs_are_in_use_so_that_a_slot_given_changes_no_target():
    before = pool(busy("i-1"), instance("i-2"), waiting=jobs(3), policies=(policy(scale_factor=1.0),))
    assert plan(before).idle_target == 4
    assert plan(apply(before, plan(before))).idle_target == 4


def test_scale_factor_limit_bounds_the_factor_and_not_idle_count():
    rows = [busy(f"i-{n}") for n in range(9)]
    bounded = policy(scale_factor=1.0, scale_factor_limit=3, idle_count=2)
    assert plan(pool(*rows, policies=(bounded,))).idle_target == 3
    assert plan(pool(*rows, policies=(replace(bounded, idle_count=5),))).idle_target == 5


def test_scale_factor_does_not_count_one_more_for_the_dust_of_floats():
    rows = [busy(f"i-{n}") for n in range(30)]
    assert plan(pool(*rows, policies=(policy(scale_factor=0.1),))).idle_target == 3


def test_law_10_max_instances_counts_every_state_but_gone():
    rows = [instance(f"i-{n}", state, state_by=NOW + HOUR) for n, state in enumerate(S)]
    made = plan(pool(*rows, waiting=jobs(20), max_instances=len(S) + 1))
    assert created(made) == 2
    assert made.inputs.instance_count == len(S) - 1


def test_law_10_a_machine_being_deleted_holds_its_place_until_it_is_gone():
    made = plan(pool(instance("i-1", S.DELETING), waiting=jobs(1), max_instances=1))
    assert not made.creates
    (wait,) = made.waits
    assert wait.slug is Because.AT_MAX_INSTANCES
    assert wait.reason == "the pool has 1 of at most 1 machines (max_instances), 1 of them on the way out"
    assert made.ask_limit == 0


def test_a_full_placement_spills_to_the_next():
    made = plan(pool(busy("i-1", placement="a"), waiting=jobs(4), placements=sites(a=3, b=1, c=0)))
    assert [(create.placement, create.count) for create in made.creates] == [("a", 2), ("b", 1), ("c", 1)]
    assert made.creates[2].reason == "4 waiting jobs without a slot; a is full; b is full"


def test_a_cooling_placement_is_passed_over_and_the_reason_says_so():
    (create,) = plan(pool(waiting=jobs(1), placements=sites("a", "b"), cool_downs=[cool("zone:a")])).creates
    assert create.placement == "b"
    assert create.reason.endswith("; a cools down until 2026-03-02T13:00:00Z (zone:a: no machines there)")


def test_a_placement_cools_as_long_as_the_last_of_its_scopes():
    both = (Placement(name="a", scopes=("zone:a", "account:1")),)
    cold = [cool("zone:a", until=NOW + MINUTE), cool("account:1", until=NOW + HOUR)]
    (wait,) = plan(pool(waiting=jobs(1), placements=both, cool_downs=cold)).waits
    assert wait.until == NOW + HOUR


def test_when_all_placements_cool_down_jobs_wait_and_nobody_asks():
    cold = [cool("zone:a"), cool("zone:b", until=NOW + MINUTE)]
    made = plan(pool(waiting=jobs(1), placements=sites("a", "b"), cool_downs=cold))
    assert not made.creates
    assert made.ask_limit == 0
    assert made.next_at == NOW + MINUTE
    (wait,) = made.waits
    assert (wait.slug, wait.until) == (Because.COOLING_DOWN, NOW + MINUTE)
    assert wait.reason.startswith("all placements cool down until 2026-03-02T12:01:00Z: a cools down")


def test_when_one_placement_cools_and_the_other_is_full_both_are_named():
    full = pool(busy("i-1", placement="b"), waiting=jobs(1), placements=sites(a=0, b=1), cool_downs=[cool("zone:a")])
    (wait,) = plan(full).waits
    assert wait.slug is Because.COOLING_DOWN
    assert wait.reason.startswith("no placement may be used until 2026-03-02T13:00:00Z: a cools down")
    assert wait.reason.endswith("; b is full")


def test_when_every_placement_is_full_the_reason_is_that():
    (wait,) = plan(pool(busy("i-1", placement="a"), waiting=jobs(1), placements=sites(a=1))).waits
    assert (wait.slug, wait.reason) == (Because.PLACEMENTS_FULL, "no placement has room: a is full")


def test_the_throttle_lets_through_what_its_tokens_pay_for():
    slow = Throttle(per_s=0.5, burst=5)
    made = plan(pool(waiting=jobs(3), tokens=1.5, throttle=slow))
    assert created(made) == 1
    assert slugs(made.waits) == ["machine_requested", "throttled", "throttled"]
    assert made.waits[0].reason == "a machine is being asked for in placement default"
    assert made.waits[1].reason == "creation is throttled until 2026-03-02T12:00:01Z (scale_throttle: 0.5 a second)"
    assert made.next_at == NOW + SECOND


def test_a_failed_machine_is_replaced_at_once():
    made = plan(pool(instance("i-1", unhealthy="no answer"), instance("i-2"), policies=WARM))
    assert created(made) == 1
    assert ids(made.deletes) == ["i-1"]


def test_preemptive_pools_make_machines_for_what_is_owed():
    made = plan(pool(busy("i-1"), waiting=jobs(2), policies=(policy(idle_count=0, preemptive_mode=True),)))
    assert made.preemptive
    assert created(made) == 2


def test_given_machines_are_never_made():
    made = plan(pool(busy("i-1"), waiting=jobs(2), policies=WARM, fixed_inventory=True))
    assert not made.creates
    assert slugs(made.waits) == ["no_free_slot"] * 2
    (wait,) = plan(pool(waiting=jobs(1), fixed_inventory=True)).waits
    assert wait.slug is Because.NO_HEALTHY_MACHINE


# Giving slots


def test_the_oldest_job_gets_the_slot():
    assert given(plan(pool(instance("i-1"), waiting=[job(3), job(2, age=HOUR)]))) == [("j-2", "i-1", 0)]


def test_slots_are_given_on_the_fullest_machine_lowest_number_first():
    rows = [busy("i-1", 1), busy("i-2", 0, 2), instance("i-3")]
    made = plan(pool(*rows, waiting=jobs(4), capacity_per_instance=3))
    assert given(made) == [("j-1", "i-2", 1), ("j-2", "i-1", 0), ("j-3", "i-1", 2), ("j-4", "i-3", 0)]
    assert made.assigns[0].reason == "the fullest machine with a free slot (2 leases)"


def test_among_equals_the_one_used_last_is_used_again():
    made = plan(pool(instance("i-1", idle=3 * MINUTE), instance("i-2", idle=MINUTE), waiting=jobs(1)))
    assert given(made) == [("j-1", "i-2", 0)]


def test_a_job_never_gets_a_machine_that_failed_it_and_has_a_new_one_made():
    made = plan(pool(instance("i-1"), waiting=[job(1, avoid=["i-1"])]))
    assert not made.assigns
    assert created(made) == 1
    assert made.waits[0].reason.endswith("(not again on i-1, where it failed to start)")
    assert not made.drains, "the free machine stays while a job waits"


def test_a_younger_job_may_take_what_an_older_one_avoids():
    made = plan(pool(instance("i-1"), waiting=[job(1, avoid=["i-1"], age=HOUR), job(2)]))
    assert given(made) == [("j-2", "i-1", 0)]
    assert created(made) == 1


def test_what_an_older_job_stepped_over_is_still_the_next_to_be_given():
    rows = [busy("i-1", 0, 1), busy("i-2"), instance("i-3")]
    made = plan(pool(*rows, waiting=[job(1, avoid=["i-1"], age=HOUR), job(2)], capacity_per_instance=3))
    assert given(made) == [("j-1", "i-2", 1), ("j-2", "i-1", 2)]


def test_a_job_counts_on_no_coming_machine_that_failed_it():
    made = plan(pool(instance("i-1", S.BOOTING), waiting=[job(1, avoid=["i-1"])]))
    assert created(made) == 1


def test_in_a_full_pool_a_machine_that_the_job_avoids_makes_room():
    made = plan(pool(instance("i-1"), waiting=[job(1, avoid=["i-1"])], max_instances=1))
    assert slugs(made.drains) == ["makes_room"]
    assert slugs(made.waits) == ["at_max_instances"]
    after = apply(pool(instance("i-1"), waiting=[job(1, avoid=["i-1"])], max_instances=1), made)
    assert plan(after).changes_nothing, "it waits until that is gone"


def test_no_machine_makes_room_while_it_is_creation_that_is_stopped():
    rows = {"waiting": [job(1, avoid=["i-1"])], "cool_downs": [cool("zone:a")], "placements": sites("a")}
    assert plan(pool(instance("i-1", placement="a"), **rows)).changes_nothing


@pytest.mark.parametrize(
    "row",
    [
        instance("i-1", S.DRAINING, used_slots=[1]),
        instance("i-1", S.DELETING),
        instance("i-1", S.STOPPED),
        instance("i-1", unhealthy="no answer"),
        instance("i-1", created_at=NOW - 3 * HOUR),
        instance("i-1", use_count=7),
    ],
    ids=["draining", "deleting", "stopped", "unhealthy", "over age", "used up"],
)
def test_what_may_get_no_job_gets_none(row):
    made = plan(pool(row, waiting=jobs(1), capacity_per_instance=2, max_age=2 * HOUR, max_use_count=7))
    assert not made.assigns
    assert created(made) == 1


def test_no_more_slots_are_given_than_uses_are_left():
    snapshot = pool(instance("i-1", use_count=3), waiting=jobs(3), capacity_per_instance=4, max_use_count=5)
    made = plan(snapshot)
    assert [assign.slot for assign in made.assigns] == [0, 1]
    (drain,) = made.drains
    assert (drain.slug, drain.only_idle) == (Because.USED_UP, False)
    assert drain.reason == "it has been given 5 jobs (max_use_count 5)"
    assert not made.deletes


def test_an_outdated_machine_serves_as_a_last_resort_and_drains_with_its_job():
    made = plan(pool(instance("i-1"), instance("i-2", settings_version=2), waiting=jobs(2), settings_version=2))
    assert given(made) == [("j-1", "i-2", 0), ("j-2", "i-1", 0)]
    assert slugs(made.assigns) == ["fullest", "last_resort"]
    assert ids(made.drains) == ["i-1"]
    assert not made.deletes


def test_a_machine_made_for_the_idle_target_is_not_taken_for_the_job_of_an_outdated_one():
    before = pool(instance("i-1", S.REQUESTED), waiting=jobs(1), policies=(policy(idle_count=1),), settings_version=2)
    made = plan(before)
    assert created(made) == 1
    assert plan(apply(before, made)).changes_nothing


# What people see


def test_the_inputs_are_the_numbers_of_the_decision():
    rows = [
        busy("i-1", 0, 1),
        busy("i-2"),
        instance("i-3"),
        instance("i-4", S.BOOTING),
        busy("i-5", state=S.DRAINING),
        instance("i-6", unhealthy="no answer"),
        instance("i-7", S.DELETING),
    ]
    grows = policy(idle_count=1, scale_factor=0.1, scale_factor_limit=7)
    made = plan(pool(*rows, waiting=jobs(1), asking=2, capacity_per_instance=2, max_instances=9, policies=(grows,)))
    told = made.inputs
    assert (told.instance_count, told.max_instance_count, told.capacity_per_instance) == (7, 9, 2)
    assert (told.acquired, told.idle, told.pending, told.unavailable_capacity) == (4, 3, 2, 3)
    assert (told.reserved, told.asking, told.waiting) == (3, 2, 1)
    assert (told.idle_count, told.scale_factor, told.scale_factor_limit) == (1, 0.1, 7)
    assert made.desired_instances == 3
    assert plan(pool(busy("i-1"), fixed_inventory=True)).desired_instances == 1
    assert plan(pool(waiting=jobs(9), max_instances=4)).desired_instances == 4
    assert plan(pool(waiting=jobs(9), placements=sites(a=2, b=1))).desired_instances == 3
