"""What holds for every pool, whatever its rows: the laws as properties."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from fleet.model.plan import Because
from fleet.model.policy import Placement, Policy
from fleet.planning.census import Group, take_census
from fleet.planning.periods import holds
from fleet.planning.planner import plan
from tests.unit.planning.rows import MINUTE, NOW, S, apply, cool, created, ids, instance, job, pool

IDS = [f"i-{n}" for n in range(9)]
minutes = st.integers(0, 90).map(lambda n: timedelta(minutes=n))
STATES = [*S, S.READY, S.READY, S.READY, S.READY, S.READY, S.READY]
LEASED = {S.READY, S.DRAINING}
PLACEMENTS = ("default", "spot", "dear", "forgotten")

policies = st.builds(
    Policy,
    periods=st.sampled_from([("* * * * *",), ("* 9-17 * * 1-5",), ("* 0-5 * * *",), ("30-59 * * * *", "* * * * 0")]),
    idle_count=st.integers(0, 4),
    idle_time=st.sampled_from([timedelta(0), MINUTE, 30 * MINUTE]),
    scale_factor=st.sampled_from([0.0, 0.0, 0.1, 1.0, 2.5]),
    scale_factor_limit=st.integers(0, 5),
    preemptive_mode=st.sampled_from([None, None, True, False]),
)


@st.composite
def instances(draw, name, capacity):
    state = draw(st.sampled_from(STATES))
    used = draw(st.sets(st.integers(0, capacity - 1))) if state in LEASED and draw(st.booleans()) else ()
    idle = draw(minutes)
    return instance(
        name,
        state,
        idle=idle,
        used_slots=sorted(used),
        use_count=len(used) + draw(st.sampled_from([0, 0, 1, 3])),
        placement=draw(st.sampled_from(PLACEMENTS)),
        created_at=NOW - idle - draw(minutes),
        state_by=draw(st.sampled_from([None, NOW + MINUTE, NOW + MINUTE, NOW - MINUTE])),
        settings_version=draw(st.sampled_from([2, 2, 2, 1])),
        unhealthy=draw(st.sampled_from([None, None, None, None, "no answer"])),
    )


@st.composite
def pools(draw):
    capacity = draw(st.sampled_from([1, 1, 2, 3]))
    rows = [draw(instances(name, capacity)) for name in IDS[: draw(st.integers(0, len(IDS)))]]
    # only a machine that was ready once can have failed a job
    failed = [row.instance_id for row in rows if row.state in {S.READY, S.DRAINING, S.DELETING}]
    avoids = st.sets(st.sampled_from(failed), max_size=3) if failed else st.just(set())
    waiting = [
        job(n, avoid=draw(st.one_of(st.just(set()), avoids)), age=draw(minutes)) for n in range(draw(st.integers(0, 6)))
    ]
    places = draw(st.lists(st.sampled_from(PLACEMENTS[:3]), unique=True, min_size=1))
    return pool(
        *rows,
        waiting=waiting,
        asking=draw(st.integers(0, 6)),
        tokens=draw(st.sampled_from([None, None, 0.0, 0.5, 1.0, 2.5, 9.0])),
        cool_downs=[
            cool(f"zone:{zone}", until=NOW + draw(st.sampled_from([-1, 1])) * MINUTE)
            for zone in draw(st.sets(st.sampled_from(["a", "b"])))
        ],
        frozen=draw(st.sampled_from([False, False, False, True])),
        capacity_per_instance=capacity,
        max_instances=draw(st.sampled_from([0, 1, 2, 4, 8])),
        max_use_count=draw(st.sampled_from([0, 0, 1, 2, 5])),
        max_age=draw(st.sampled_from([None, 60 * MINUTE])),
        policies=tuple(draw(st.lists(policies, max_size=3))),
        placements=tuple(
            Placement(name=name, max_instances=draw(st.sampled_from([0, 0, 1, 3])), scopes=(f"zone:{'ab'[n % 2]}",))
            for n, name in enumerate(places)
        ),
        fixed_inventory=draw(st.sampled_from([False, False, False, False, True])),
        retired=draw(st.sampled_from([False, False, False, False, True])),
        settings_version=2,
    )


def removed(made):
    return {*ids(made.drains), *ids(made.deletes)}


@given(pools())
def test_law_1_no_leased_instance_is_ever_removed(snapshot):
    made = plan(snapshot)
    leased = {row.instance_id for row in snapshot.instances if row.used_slots}
    given_now = set(ids(made.assigns))
    assert not leased & set(ids(made.deletes))
    assert not given_now & set(ids(made.deletes))
    assert not (leased | given_now) & {drain.instance_id for drain in made.drains if drain.only_idle}


@given(pools())
def test_law_1_what_is_left_still_covers_what_polls_hold(snapshot):
    made = plan(snapshot)
    after = apply(snapshot, made)
    free_after = take_census(after).free

    def usable(rows, free):
        return sum(len(free[r.instance_id]) for r in rows if r.state is S.READY and r.unhealthy is None)

    before = usable(snapshot.instances, take_census(apply(snapshot, replace(made, drains=(), deletes=()))).free)
    let_go = {d.instance_id for d in made.drains if d.slug in {Because.IDLE, Because.SURPLUS, Because.MAKES_ROOM}}
    if made.preemptive and let_go:
        assert usable(after.instances, free_after) >= min(before, snapshot.asking)


@given(pools())
def test_law_10_never_above_max_instances(snapshot):
    most, made = snapshot.limits.max_instances, plan(snapshot)
    alive = sum(row.state is not S.GONE for row in snapshot.instances)
    if most:
        assert created(made) <= max(0, most - alive)
    for place in snapshot.limits.placements:
        here = sum(row.placement == place.name and row.state is not S.GONE for row in snapshot.instances)
        new = sum(create.count for create in made.creates if create.placement == place.name)
        assert not place.max_instances or new <= max(0, place.max_instances - here)
    if snapshot.tokens is not None:
        assert created(made) <= snapshot.tokens


@given(pools())
def test_law_8_every_action_and_every_wait_has_a_reason(snapshot):
    made = plan(snapshot)
    actions = (*made.creates, *made.assigns, *made.drains, *made.deletes, *made.waits)
    assert all(action.reason and action.slug in Because for action in actions)
    assert {wait.job for wait in made.waits} | {a.job for a in made.assigns} == {row.job for row in snapshot.waiting}
    assert len(made.waits) + len(made.assigns) == len(snapshot.waiting)


@given(pools())
def test_no_plan_both_creates_and_removes_for_idleness(snapshot):
    made = plan(snapshot)
    assert not (made.creates and any(action.slug is Because.IDLE for action in (*made.drains, *made.deletes)))


@given(pools())
def test_idleness_never_eats_into_the_idle_target(snapshot):
    made = plan(snapshot)
    if any(drain.slug is Because.IDLE for drain in made.drains):
        after = take_census(apply(snapshot, made))
        assert after.slots(after.members(Group.FIT)) >= made.idle_target


@given(pools())
def test_nothing_needed_for_what_is_owed_is_removed(snapshot):
    made = plan(snapshot)
    after = apply(snapshot, made)
    served_before = len(snapshot.waiting) - len(plan(snapshot).waits)
    served_after = len(snapshot.waiting) - len(after.waiting)
    assert served_after == served_before
    waited_for = {wait.reason.split()[3].rstrip(",") for wait in made.waits if wait.slug is Because.MACHINE_PENDING}
    assert not waited_for & removed(made)


@given(pools(), st.integers(0, 9))
def test_a_held_poll_creates_no_machine_and_keeps_none(snapshot, asking):
    made, unasked = plan(replace(snapshot, asking=asking)), plan(replace(snapshot, asking=0))
    assert made.creates == unasked.creates
    assert made.assigns == unasked.assigns
    assert made.ask_limit == unasked.ask_limit, "the slots of what should go are withdrawn at once"
    assert removed(made) <= removed(unasked)
    if asking <= made.ask_limit:
        assert removed(made) == removed(unasked), "nobody asks for more than what stays"


@given(pools())
def test_the_last_matching_policy_wins(snapshot):
    limits = snapshot.limits
    matching = [index for index, each in enumerate(limits.policies) if holds(each, snapshot.now)]
    made = plan(snapshot)
    if limits.retired or limits.fixed_inventory or not matching:
        assert made.policy is None
        assert made.idle_target == 0
    else:
        assert made.policy == matching[-1]
        alone = plan(replace(snapshot, limits=replace(limits, policies=(limits.policies[matching[-1]],))))
        assert replace(made, policy=0, next_at=None) == replace(alone, next_at=None)


@given(pools())
def test_planning_again_right_after_applying_changes_nothing(snapshot):
    once = plan(snapshot)
    after = apply(snapshot, once)
    again = plan(after)
    assert again.changes_nothing
    assert again.idle_target == once.idle_target
    assert again.desired_instances == once.desired_instances or snapshot.limits.fixed_inventory
    assert len(again.waits) == len(once.waits)


@given(pools(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(snapshot, chance):
    def shuffled(rows):
        mixed = list(rows)
        chance.shuffle(mixed)
        return tuple(mixed)

    mixed = replace(
        snapshot,
        instances=shuffled(snapshot.instances),
        waiting=shuffled(snapshot.waiting),
        cool_downs=shuffled(snapshot.cool_downs),
    )
    assert plan(mixed) == plan(snapshot)


@given(pools())
def test_equal_snapshots_give_equal_plans(snapshot):
    assert plan(snapshot) == plan(replace(snapshot))


@given(pools())
def test_a_job_never_gets_a_machine_that_may_not_take_it(snapshot):
    rows = {row.instance_id: row for row in snapshot.instances}
    waiting = {row.job: row for row in snapshot.waiting}
    limits, given_slots = snapshot.limits, {}
    for assign in plan(snapshot).assigns:
        row = rows[assign.instance_id]
        assert row.state is S.READY
        assert row.unhealthy is None
        assert row.instance_id not in waiting[assign.job].avoid
        assert limits.max_age is None or snapshot.frozen_removals or NOW - row.created_at < limits.max_age
        taken = given_slots.setdefault(row.instance_id, [*row.used_slots])
        lowest = min(set(range(limits.capacity_per_instance)) - set(taken))
        assert assign.slot == lowest
        taken.append(assign.slot)
        assert not limits.max_use_count or row.use_count + len(taken) - len(row.used_slots) <= limits.max_use_count


@given(pools())
def test_a_round_without_removals_removes_nothing(snapshot):
    made = plan(replace(snapshot, frozen_removals=True))
    assert not made.drains
    assert not made.deletes


@given(pools())
def test_until_next_at_time_alone_changes_nothing(snapshot):
    settled = apply(snapshot, plan(replace(snapshot, frozen_removals=False)))
    settled = replace(settled, frozen_removals=False)
    settled = apply(settled, plan(settled))
    wakes_at = plan(settled).next_at or NOW + timedelta(hours=3)
    assert wakes_at > NOW
    assert plan(replace(settled, now=wakes_at - timedelta(microseconds=1))).changes_nothing
