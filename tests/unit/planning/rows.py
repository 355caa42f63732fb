"""Short ways to write the rows that planning reads, and to apply what it decided."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fleet.model.ids import InstanceId, JobKey, PoolName, RunnerKey
from fleet.model.lifecycle import PENDING_INSTANCE, InstanceState
from fleet.model.plan import Plan
from fleet.model.policy import CoolDown, Placement, Policy, PoolLimits
from fleet.model.snapshot import InstanceView, PoolSnapshot, WaitingJob

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
POOL = PoolName("linux")
S = InstanceState
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def instance(name, state=S.READY, *, idle=MINUTE, **more):
    """An instance of 40 minutes that has been `idle` for a minute, or has been in its state for one."""
    used = tuple(more.pop("used_slots", ()))
    row = {
        "instance_id": InstanceId(name),
        "placement": "default",
        "state": state,
        "state_at": NOW - idle,
        "state_by": NOW + 5 * MINUTE if state in PENDING_INSTANCE else None,
        "created_at": NOW - 40 * MINUTE,
        "idle_since": NOW - idle if state is S.READY and not used else None,
        "used_slots": used,
        "use_count": len(used),
        "settings_version": 1,
    }
    return InstanceView(**{**row, **more})


def busy(name, *slots, **more):
    return instance(name, used_slots=slots or (0,), **more)


def job(number, *, avoid=(), age=MINUTE):
    return WaitingJob(
        job=JobKey(f"j-{number}"),
        runner=RunnerKey("https://gitlab.test|1"),
        gitlab_job_id=number,
        received_at=NOW - age,
        avoid=frozenset(InstanceId(name) for name in avoid),
    )


def jobs(count):
    """`count` jobs, number 1 the oldest."""
    return tuple(job(number, age=timedelta(seconds=count - number)) for number in range(1, count + 1))


def policy(**more):
    return Policy(**{"idle_time": 10 * MINUTE, **more})


def cool(scope, until=NOW + HOUR, failures=1, reason="no machines there"):
    return CoolDown(scope=scope, until=until, failures=failures, reason=reason)


def pool(*instances, waiting=(), asking=0, tokens=None, cool_downs=(), frozen=False, now=NOW, **limits):
    """A snapshot; what is not a row of its own is a limit of the pool."""
    limits.setdefault("policies", (policy(),))
    return PoolSnapshot(
        pool=POOL,
        now=now,
        limits=PoolLimits(name=POOL, **limits),
        instances=tuple(instances),
        asking=asking,
        waiting=tuple(waiting),
        cool_downs=tuple(cool_downs),
        tokens=tokens,
        frozen_removals=frozen,
    )


def sites(*names, **maxima):
    """Placements with a scope `zone:NAME` each, some with a limit of their own."""
    every = dict.fromkeys(names, 0) | maxima
    return tuple(Placement(name=n, max_instances=most, scopes=(f"zone:{n}",)) for n, most in every.items())


def ids(actions):
    return [action.instance_id for action in actions]


def created(plan):
    return sum(create.count for create in plan.creates)


_numbers = itertools.count()


def apply(snapshot: PoolSnapshot, plan: Plan) -> PoolSnapshot:
    """The rows as they are right after the plan has been applied, with the gate of law 1 at each."""
    rows = {row.instance_id: row for row in snapshot.instances}
    waiting = {row.job: row for row in snapshot.waiting}
    for create in plan.creates:
        for _ in range(create.count):
            new = instance(f"new-{next(_numbers):09}", S.REQUESTED, placement=create.placement)
            rows[new.instance_id] = replace(
                new,
                state_at=snapshot.now,
                created_at=snapshot.now,
                state_by=snapshot.now + 10 * MINUTE,
                settings_version=snapshot.limits.settings_version,
            )
    for assign in plan.assigns:
        row, _ = rows[assign.instance_id], waiting.pop(assign.job)
        assert row.state is S.READY
        assert assign.slot not in row.used_slots
        used = (*row.used_slots, assign.slot)
        rows[row.instance_id] = replace(row, used_slots=used, use_count=row.use_count + 1, idle_since=None)
    for drain in plan.drains:
        row = rows[drain.instance_id]
        assert row.state is S.READY
        assert not (drain.only_idle and row.used_slots), "an idle drain met a lease"
        rows[row.instance_id] = replace(row, state=S.DRAINING, drain_reason=drain.reason, state_at=snapshot.now)
    for delete in plan.deletes:
        row = rows[delete.instance_id]
        assert row.state not in {S.READY, S.DELETING, S.GONE}
        assert not row.used_slots, "law 1"
        rows[row.instance_id] = replace(
            row, state=S.DELETING, state_at=snapshot.now, state_by=snapshot.now + 15 * MINUTE
        )
    tokens = None if snapshot.tokens is None else snapshot.tokens - created(plan)
    return replace(snapshot, instances=tuple(rows.values()), waiting=tuple(waiting.values()), tokens=tokens)
