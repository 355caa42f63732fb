"""What planning sees of one pool at one moment: frozen rows, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.model.ids import InstanceId, JobKey, PoolName, RunnerKey
from fleet.model.lifecycle import InstanceState
from fleet.model.policy import CoolDown, PoolLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One instance that is not gone.

    Attributes:
        placement: name of the placement it was made in.
        state_at: when it entered its state.
        state_by: the deadline of that state; None when it may last.
        created_at: when it was asked for; age counts from here.
        idle_since: since when it has had no lease; None while it has one or was never ready.
        used_slots: the slot numbers of its active leases.
        use_count: leases granted in its life.
        settings_version: of the pool when it was asked for.
        unhealthy: why it must not get another job; None when it may.
        drain_reason: why it drains; None unless it does.
        no_room: why it gets no further job for now, though nothing is wrong with it; None when its disks have room.
    """

    instance_id: InstanceId
    placement: str
    state: InstanceState
    state_at: datetime
    state_by: datetime | None
    created_at: datetime
    idle_since: datetime | None
    used_slots: tuple[int, ...]
    use_count: int
    settings_version: int
    unhealthy: str | None = None
    drain_reason: str | None = None
    no_room: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job that holds an `owed` reservation of this pool and no lease yet.

    Attributes:
        avoid: instances that failed this job before; it changes machine.
    """

    job: JobKey
    runner: RunnerKey
    gitlab_job_id: int
    received_at: datetime
    avoid: frozenset[InstanceId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """Everything `plan()` may look at.

    Attributes:
        asking: reservations held by polls in the air.
        waiting: jobs without a lease, oldest first or in any order.
        cool_downs: scopes that failed lately.
        tokens: what is in the creation throttle now; None is no limit.
        frozen_removals: one planning round after a step of the clock or a suspend removes nothing.
        calendar_ahead: how far people's calendar, by which policies have their periods, is ahead of `now`.
    """

    pool: PoolName
    now: datetime
    limits: PoolLimits
    instances: tuple[InstanceView, ...] = ()
    asking: int = 0
    waiting: tuple[WaitingJob, ...] = ()
    cool_downs: tuple[CoolDown, ...] = ()
    tokens: float | None = None
    frozen_removals: bool = False
    calendar_ahead: timedelta = timedelta(0)
