"""What a manager has to do for its open jobs, in one light query: no secret is opened for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from fleet.model.ids import InstanceId, JobKey, LeaseId, PoolName, RunnerKey
from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.store.database import Tx
from fleet.store.tables import instances, jobs, leases

# spelled out, so that the database can use the index of open jobs
OPEN_JOBS = sa.text("jobs.state NOT IN ('finished', 'abandoned')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One open job, with its lease and machine as far as it has them.

    Attributes:
        maybe_started: the start may have reached the agent; before that a job may change machine.
        trace_bytes: length of the whole trace once the job has ended; None before.
    """

    key: JobKey
    runner: RunnerKey
    pool: PoolName
    gitlab_job_id: int
    epoch: int
    state: JobState
    state_at: datetime
    received_at: datetime
    deadline_at: datetime
    stop: str | None
    moves: int
    maybe_started: bool
    has_outcome: bool
    lease: LeaseId | None
    lease_state: LeaseState | None
    instance: InstanceId | None
    instance_state: InstanceState | None
    instance_by: datetime | None


_WORK = (
    sa.select(
        jobs.c.job_key,
        jobs.c.runner_key,
        jobs.c.pool,
        jobs.c.gitlab_job_id,
        jobs.c.epoch,
        jobs.c.state,
        jobs.c.state_at,
        jobs.c.received_at,
        jobs.c.deadline_at,
        jobs.c.stop,
        jobs.c.moves,
        jobs.c.prologue.is_not(None).label("maybe_started"),
        jobs.c.outcome.is_not(None).label("has_outcome"),
        jobs.c.lease_id,
        leases.c.state.label("lease_state"),
        leases.c.instance_id,
        instances.c.state.label("instance_state"),
        instances.c.state_by.label("instance_by"),
    )
    .outerjoin(leases, leases.c.lease_id == jobs.c.lease_id)
    .outerjoin(instances, instances.c.instance_id == leases.c.instance_id)
    .where(OPEN_JOBS, jobs.c.owner == sa.bindparam("owner_"))
    .order_by(jobs.c.received_at, jobs.c.job_key)
)


def work_of(tx: Tx, owner: str) -> list[Work]:
    """The open jobs of a manager, oldest first."""
    return [
        Work(
            key=JobKey(row.job_key),
            runner=RunnerKey(row.runner_key),
            pool=PoolName(row.pool),
            gitlab_job_id=row.gitlab_job_id,
            epoch=row.epoch,
            state=JobState(row.state),
            state_at=row.state_at,
            received_at=row.received_at,
            deadline_at=row.deadline_at,
            stop=row.stop,
            moves=row.moves,
            maybe_started=row.maybe_started,
            has_outcome=row.has_outcome,
            lease=None if row.lease_id is None else LeaseId(row.lease_id),
            lease_state=None if row.lease_state is None else LeaseState(row.lease_state),
            instance=None if row.instance_id is None else InstanceId(row.instance_id),
            instance_state=None if row.instance_state is None else InstanceState(row.instance_state),
            instance_by=row.instance_by,
        )
        for row in tx.sql.execute(_WORK, {"owner_": owner})
    ]


_HELD = (
    sa.select(jobs.c.runner_key, sa.func.count().label("jobs"))
    .where(
        jobs.c.owner == sa.bindparam("owner_"),
        OPEN_JOBS,
        jobs.c.state.in_([JobState.RECEIVED, JobState.WAITING, JobState.STARTING, JobState.RUNNING]),
    )
    .group_by(jobs.c.runner_key)
)


def held_by_runner(tx: Tx, owner: str) -> dict[RunnerKey, int]:
    """How many jobs of a manager count against the limits: those that have not ended on their machine."""
    return {RunnerKey(row.runner_key): row.jobs for row in tx.sql.execute(_HELD, {"owner_": owner})}


def open_keys(tx: Tx) -> set[str]:
    """The open jobs of all managers."""
    return set(tx.sql.execute(sa.select(jobs.c.job_key).where(OPEN_JOBS)).scalars())
