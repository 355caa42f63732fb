"""Reservations and leases: a promise of a slot of the pool, and the slot of one instance that a job holds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from fleet.model.ids import InstanceId, JobKey, LeaseId, PoolName
from fleet.model.job import Lease
from fleet.model.lifecycle import ACTIVE_LEASE, InstanceState, LeaseState, check_lease
from fleet.store.database import Tx
from fleet.store.statements import add, change, drop, find
from fleet.store.tables import Instant, instances, jobs, leases, pools, reservations

_ACTIVE = [state.value for state in ACTIVE_LEASE]
_POOL = pools.c.pool == sa.bindparam("pool_")
_ASKING = (
    sa.select(sa.func.count())
    .select_from(reservations)
    .where(reservations.c.pool == sa.bindparam("pool_"), reservations.c.state == "asking")
)
_ONE_LESS = sa.update(pools).where(_POOL, pools.c.ask_limit > 0).values(ask_limit=pools.c.ask_limit - 1)
_WAITING_JOB = (
    sa.select(jobs.c.runner_key, jobs.c.project_id)
    .join(pools, pools.c.pool == jobs.c.pool)
    .where(jobs.c.job_key == sa.bindparam("job_"), jobs.c.state == "waiting")
    .with_for_update()
)
_INSTANCE = instances.c.instance_id == sa.bindparam("instance_")
_ONE_USE = (
    sa.update(instances)
    .where(_INSTANCE, instances.c.state == InstanceState.READY.value, instances.c.unhealthy.is_(None))
    .values(use_count=instances.c.use_count + 1, idle_since=None)
)
_LIVE_NUMBERS = sa.select(leases.c.concurrent_id, leases.c.project_id, leases.c.project_concurrent_id).where(
    leases.c.runner_key == sa.bindparam("runner_"), leases.c.state.in_(_ACTIVE)
)
_CLEANING = (
    sa.select(leases, jobs.c.epoch.label("job_epoch"))
    .join(jobs, jobs.c.job_key == leases.c.job_key)
    .where(leases.c.state == LeaseState.CLEANING.value, jobs.c.owner == sa.bindparam("owner_"))
)
_STILL = sa.select(leases.c.lease_id).where(
    leases.c.instance_id == sa.bindparam("instance_"), leases.c.state.in_(_ACTIVE)
)
_IDLE_NOW = (
    sa.update(instances).where(_INSTANCE, ~sa.exists(_STILL)).values(idle_since=sa.bindparam("now_", type_=Instant()))
)
_POLLS = (
    sa.select(reservations.c.pool, sa.func.count().label("polls"))
    .where(reservations.c.state == "asking")
    .group_by(reservations.c.pool)
    .subquery()
)
_ROOMS = sa.select(pools.c.pool, pools.c.ask_limit, _POLLS.c.polls).outerjoin(_POLLS, _POLLS.c.pool == pools.c.pool)


def ask(tx: Tx, *, reservation_id: str, pool: str, runner_key: str, manager_id: str) -> bool:
    """Reserve a slot of the pool for one poll; False when the pool may not ask for more just now (law 3)."""
    row = find(tx, pools.c.pool, pool, pools.c.ask_limit, pools.c.retired_at, lock=True)
    if row is None or row.retired_at is not None:
        return False
    if asking_of(tx, pool) >= row.ask_limit:
        return False
    add(
        tx,
        reservations,
        reservation_id=reservation_id,
        pool=pool,
        runner_key=runner_key,
        manager_id=manager_id,
        state="asking",
        created_at=tx.now,
    )
    return True


def asking_of(tx: Tx, pool: str) -> int:
    """How many polls of all managers hold a reservation of this pool."""
    return int(tx.sql.execute(_ASKING, {"pool_": pool}).scalar_one())


_GIVE_BACK = sa.delete(reservations).where(
    reservations.c.reservation_id == sa.bindparam("reservation"), reservations.c.state == "asking"
)


def give_back(tx: Tx, reservation_id: str) -> None:
    """End the reservation of a poll; ending it twice is fine, and one that a job has meanwhile is the job's."""
    tx.sql.execute(_GIVE_BACK, {"reservation": reservation_id})


def owe(tx: Tx, reservation_id: str, *, pool: str, runner_key: str, manager_id: str, job_key: str) -> None:
    """The poll brought a job: its reservation is owed to it, and the pool may ask for one less until it plans again."""
    values = {"state": "owed", "job_key": job_key}
    if not change(
        tx, reservations.c.reservation_id, reservation_id, **values
    ):  # our claims ran out while the poll was held; the job is here all the same
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
    tx.sql.execute(_ONE_LESS, {"pool_": pool})


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
    drop(tx, reservations.c.job_key, job_key)


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
    job = tx.sql.execute(_WAITING_JOB, {"job_": job_key}).one_or_none()
    if job is None:
        return None
    if tx.sql.execute(_ONE_USE, {"instance_": instance_id}).rowcount == 0:
        return None
    live = tx.sql.execute(_LIVE_NUMBERS, {"runner_": job.runner_key}).all()
    concurrent_id = _smallest_free(row.concurrent_id for row in live)
    project_concurrent_id = _smallest_free(
        row.project_concurrent_id for row in live if row.project_id == job.project_id
    )
    add(
        tx,
        leases,
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
    forget_demand(tx, job_key)
    return Lease(
        lease_id=LeaseId(lease_id),
        instance=InstanceId(instance_id),
        job=JobKey(job_key),
        slot=slot,
        concurrent_id=concurrent_id,
        project_concurrent_id=project_concurrent_id,
        state=LeaseState.GRANTED,
        state_at=tx.now,
    )


def lease(tx: Tx, lease_id: str) -> Lease | None:
    """One lease; None when there is none of that id."""
    row = find(tx, leases.c.lease_id, lease_id, *leases.c)
    return None if row is None else _value(row)


def leases_of(tx: Tx, instance_id: str) -> list[Lease]:
    """The active leases of an instance."""
    rows = tx.sql.execute(sa.select(leases).where(leases.c.instance_id == instance_id, leases.c.state.in_(_ACTIVE)))
    return [_value(row) for row in rows]


def cleaning_leases(tx: Tx, manager_id: str) -> list[Lease]:
    """Leases whose job has ended and whose machine is not known to be clean, of jobs that this manager owns."""
    return [_value(row, epoch=row.job_epoch) for row in tx.sql.execute(_CLEANING, {"owner_": manager_id})]


def ended_among(tx: Tx, lease_ids: Iterable[str]) -> list[str]:
    """Those of these leases that our rows know and that hold no slot any more."""
    query = sa.select(leases.c.lease_id).where(leases.c.lease_id.in_(list(lease_ids)), leases.c.state.not_in(_ACTIVE))
    return sorted(tx.sql.execute(query).scalars())


def _value(row: sa.Row[tuple[object, ...]], epoch: int = 0) -> Lease:
    return Lease(
        lease_id=LeaseId(row.lease_id),
        instance=InstanceId(row.instance_id),
        job=JobKey(row.job_key),
        slot=row.slot,
        concurrent_id=row.concurrent_id,
        project_concurrent_id=row.project_concurrent_id,
        state=LeaseState(row.state),
        state_at=row.state_at,
        epoch=epoch,
    )


def move_lease(tx: Tx, lease_id: str, new: LeaseState, *, stimulus: str, reason: str) -> bool:
    """Bring a lease into another state; False when it is there already or has ended.

    The last lease that ends makes its instance idle from now on.
    """
    row = find(tx, leases.c.lease_id, lease_id, leases.c.state, leases.c.instance_id, leases.c.job_key, lock=True)
    if row is None:
        return False
    old = LeaseState(row.state)
    if old is new or old not in ACTIVE_LEASE:
        return False
    check_lease(lease_id, old, new)
    ended: datetime | None = None if new in ACTIVE_LEASE else tx.now
    change(tx, leases.c.lease_id, lease_id, state=new.value, state_at=tx.now, ended_at=ended)
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
        find(tx, instances.c.instance_id, row.instance_id, instances.c.instance_id, lock=True)
        tx.sql.execute(_IDLE_NOW, {"instance_": row.instance_id, "now_": tx.now})
    return True


def rooms(tx: Tx) -> dict[PoolName, tuple[int, int]]:
    """For each pool: how many polls of all managers hold a reservation, and how many may."""
    return {PoolName(row.pool): (row.polls or 0, row.ask_limit) for row in tx.sql.execute(_ROOMS)}
