"""Reservations and leases: a promise of a slot of the pool, and the slot of one instance that a job holds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from fleet.model.ids import InstanceId, JobKey, LeaseId, PoolName
from fleet.model.job import Lease
from fleet.model.lifecycle import ACTIVE_LEASE, InstanceState, LeaseState, check_lease
from fleet.store.database import Tx
from fleet.store.tables import instances, jobs, leases, pools, reservations

_ACTIVE = [state.value for state in ACTIVE_LEASE]


def ask(tx: Tx, *, reservation_id: str, pool: str, runner_key: str, manager_id: str) -> bool:
    """Reserve a slot of the pool for one poll; False when the pool may not ask for more just now (law 3)."""
    row = tx.sql.execute(
        sa.select(pools.c.ask_limit, pools.c.retired_at).where(pools.c.pool == pool).with_for_update()
    ).one_or_none()
    if row is None or row.retired_at is not None:
        return False
    asking = tx.sql.execute(
        sa.select(sa.func.count())
        .select_from(reservations)
        .where(reservations.c.pool == pool, reservations.c.state == "asking")
    ).scalar_one()
    if asking >= row.ask_limit:
        return False
    tx.sql.execute(
        sa.insert(reservations).values(
            reservation_id=reservation_id,
            pool=pool,
            runner_key=runner_key,
            manager_id=manager_id,
            state="asking",
            created_at=tx.now,
        )
    )
    return True


def give_back(tx: Tx, reservation_id: str) -> None:
    """End a reservation; ending it twice is fine."""
    tx.sql.execute(sa.delete(reservations).where(reservations.c.reservation_id == reservation_id))


def owe(tx: Tx, reservation_id: str, *, pool: str, runner_key: str, manager_id: str, job_key: str) -> None:
    """The poll brought a job: its reservation is owed to it, and the pool may ask for one less until it plans again."""
    values = {"state": "owed", "job_key": job_key}
    done = tx.sql.execute(
        sa.update(reservations).where(reservations.c.reservation_id == reservation_id).values(**values)
    )
    if done.rowcount == 0:  # our claims ran out while the poll was held; the job is here all the same
        tx.sql.execute(
            sa.insert(reservations).values(
                reservation_id=reservation_id,
                pool=pool,
                runner_key=runner_key,
                manager_id=manager_id,
                created_at=tx.now,
                **values,
            )
        )
    tx.sql.execute(
        sa.update(pools).where(pools.c.pool == pool, pools.c.ask_limit > 0).values(ask_limit=pools.c.ask_limit - 1)
    )


def owe_again(tx: Tx, *, pool: str, runner_key: str, manager_id: str, job_key: str) -> None:
    """The job lost its machine before it started: it is owed a slot again."""
    tx.sql.execute(
        sa.insert(reservations).values(
            reservation_id=f"again-{job_key}-{tx.now.timestamp():.6f}",
            pool=pool,
            runner_key=runner_key,
            manager_id=manager_id,
            state="owed",
            job_key=job_key,
            created_at=tx.now,
        )
    )


def forget_demand(tx: Tx, job_key: str) -> None:
    """The job needs no machine any more."""
    tx.sql.execute(sa.delete(reservations).where(reservations.c.job_key == job_key))


def _smallest_free(taken: Iterable[int]) -> int:
    used = set(taken)
    number = 0
    while number in used:
        number += 1
    return number


def grant(tx: Tx, *, lease_id: str, job_key: str, instance_id: str, slot: int) -> Lease | None:
    """Give a job its slot; None when the instance is not ready and well, or the job no longer waits.

    The unique indexes on active leases make a second grant of the same slot or job fail, whoever tries.
    """
    # the job is held so that it cannot end meanwhile, its pool so that nobody else takes the same numbers
    job = tx.sql.execute(
        sa.select(jobs.c.runner_key, jobs.c.project_id)
        .join(pools, pools.c.pool == jobs.c.pool)
        .where(jobs.c.job_key == job_key, jobs.c.state == "waiting")
        .with_for_update()
    ).one_or_none()
    if job is None:
        return None
    ready = tx.sql.execute(
        sa.update(instances)
        .where(
            instances.c.instance_id == instance_id,
            instances.c.state == InstanceState.READY.value,
            instances.c.unhealthy.is_(None),
        )
        .values(use_count=instances.c.use_count + 1, idle_since=None)
    )
    if ready.rowcount == 0:
        return None
    live = tx.sql.execute(
        sa.select(leases.c.concurrent_id, leases.c.project_id, leases.c.project_concurrent_id).where(
            leases.c.runner_key == job.runner_key, leases.c.state.in_(_ACTIVE)
        )
    ).all()
    concurrent_id = _smallest_free(row.concurrent_id for row in live)
    project_concurrent_id = _smallest_free(
        row.project_concurrent_id for row in live if row.project_id == job.project_id
    )
    tx.sql.execute(
        sa.insert(leases).values(
            lease_id=lease_id,
            instance_id=instance_id,
            job_key=job_key,
            runner_key=job.runner_key,
            project_id=job.project_id,
            slot=slot,
            concurrent_id=concurrent_id,
            project_concurrent_id=project_concurrent_id,
            state=LeaseState.GRANTED.value,
            state_at=tx.now,
            granted_at=tx.now,
        )
    )
    forget_demand(tx, job_key)
    return Lease(
        lease_id=LeaseId(lease_id),
        instance=InstanceId(instance_id),
        job=JobKey(job_key),
        slot=slot,
        concurrent_id=concurrent_id,
        project_concurrent_id=project_concurrent_id,
        state=LeaseState.GRANTED,
    )


def lease(tx: Tx, lease_id: str) -> Lease | None:
    """One lease; None when there is none of that id."""
    row = tx.sql.execute(sa.select(leases).where(leases.c.lease_id == lease_id)).one_or_none()
    return None if row is None else _value(row)


def leases_of(tx: Tx, instance_id: str) -> list[Lease]:
    """The active leases of an instance."""
    rows = tx.sql.execute(sa.select(leases).where(leases.c.instance_id == instance_id, leases.c.state.in_(_ACTIVE)))
    return [_value(row) for row in rows]


def cleaning_leases(tx: Tx, manager_id: str) -> list[Lease]:
    """Leases whose job has ended and whose machine is not known to be clean, of jobs that this manager owns."""
    query = (
        sa.select(leases, jobs.c.epoch.label("job_epoch"))
        .join(jobs, jobs.c.job_key == leases.c.job_key)
        .where(leases.c.state == LeaseState.CLEANING.value, jobs.c.owner == manager_id)
    )
    return [_value(row, epoch=row.job_epoch) for row in tx.sql.execute(query)]


def _value(row: sa.Row[tuple[object, ...]], epoch: int = 0) -> Lease:
    return Lease(
        lease_id=LeaseId(row.lease_id),
        instance=InstanceId(row.instance_id),
        job=JobKey(row.job_key),
        slot=row.slot,
        concurrent_id=row.concurrent_id,
        project_concurrent_id=row.project_concurrent_id,
        state=LeaseState(row.state),
        epoch=epoch,
    )


def move_lease(tx: Tx, lease_id: str, new: LeaseState, *, stimulus: str, reason: str) -> bool:
    """Bring a lease into another state; False when it is there already or has ended.

    The last lease that ends makes its instance idle from now on.
    """
    row = tx.sql.execute(
        sa.select(leases.c.state, leases.c.instance_id, leases.c.job_key)
        .where(leases.c.lease_id == lease_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return False
    old = LeaseState(row.state)
    if old is new or old not in ACTIVE_LEASE:
        return False
    check_lease(lease_id, old, new)
    ended: datetime | None = None if new in ACTIVE_LEASE else tx.now
    tx.sql.execute(
        sa.update(leases).where(leases.c.lease_id == lease_id).values(state=new.value, state_at=tx.now, ended_at=ended)
    )
    tx.journal(
        "lease",
        lease_id,
        stimulus,
        reason,
        old=old.value,
        new=new.value,
        job_key=row.job_key,
        instance_id=row.instance_id,
    )
    if ended is not None:
        # two last leases that end at one moment must see each other, or neither would call the instance idle
        tx.sql.execute(
            sa.select(instances.c.instance_id).where(instances.c.instance_id == row.instance_id).with_for_update()
        )
        still = sa.select(leases.c.lease_id).where(leases.c.instance_id == row.instance_id, leases.c.state.in_(_ACTIVE))
        tx.sql.execute(
            sa.update(instances)
            .where(instances.c.instance_id == row.instance_id, ~sa.exists(still))
            .values(idle_since=tx.now)
        )
    return True


def rooms(tx: Tx) -> dict[PoolName, tuple[int, int]]:
    """For each pool: how many polls of all managers hold a reservation, and how many may."""
    asking = (
        sa.select(reservations.c.pool, sa.func.count().label("polls"))
        .where(reservations.c.state == "asking")
        .group_by(reservations.c.pool)
        .subquery()
    )
    query = sa.select(pools.c.pool, pools.c.ask_limit, asking.c.polls).outerjoin(asking, asking.c.pool == pools.c.pool)
    return {PoolName(row.pool): (row.polls or 0, row.ask_limit) for row in tx.sql.execute(query)}
