"""What people and metrics read of the store, each in one light query; no secret is opened for any of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet.model.lifecycle import ACTIVE_LEASE
from fleet.model.policy import CoolDown
from fleet.store.database import Tx
from fleet.store.journal import high_water
from fleet.store.snapshots import running_cool_downs
from fleet.store.tables import instances, jobs, journal, leases, pools, reservations, stores

ACTIVE = [state.value for state in ACTIVE_LEASE]
TAIL = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many there are of everything.

    Attributes:
        jobs: (runner, pool, state) -> open jobs of one manager.
        instances: (pool, state, unhealthy) -> instances that are not gone.
        leases: (pool, instance's state, unhealthy) -> active leases.
        reservations: (pool, state) -> reservations of all managers.
        ask_limits: pool -> polls it may hold.
    """

    now: datetime
    jobs: dict[tuple[str, str, str], int]
    instances: dict[tuple[str, str, bool], int]
    leases: dict[tuple[str, str, bool], int]
    reservations: dict[tuple[str, str], int]
    ask_limits: dict[str, int]
    cool_downs: tuple[CoolDown, ...]
    journal_lines: int


def census(tx: Tx, me: str) -> Census:
    """Count everything for one manager."""
    unhealthy = instances.c.unhealthy.is_not(None).label("unhealthy")
    n = sa.func.count().label("n")
    open_jobs = sa.text("jobs.state NOT IN ('finished', 'abandoned')")
    return Census(
        now=tx.now,
        jobs=_counts(
            tx,
            sa.select(jobs.c.runner_key, jobs.c.pool, jobs.c.state, n)
            .where(open_jobs, jobs.c.owner == me)
            .group_by(jobs.c.runner_key, jobs.c.pool, jobs.c.state),
        ),
        instances=_counts(
            tx,
            sa.select(instances.c.pool, instances.c.state, unhealthy, n)
            .where(sa.text("instances.state <> 'gone'"))
            .group_by(instances.c.pool, instances.c.state, unhealthy),
        ),
        leases=_counts(
            tx,
            sa.select(instances.c.pool, instances.c.state, unhealthy, n)
            .select_from(leases.join(instances, instances.c.instance_id == leases.c.instance_id))
            .where(leases.c.state.in_(ACTIVE))
            .group_by(instances.c.pool, instances.c.state, unhealthy),
        ),
        reservations=_counts(
            tx,
            sa.select(reservations.c.pool, reservations.c.state, n).group_by(reservations.c.pool, reservations.c.state),
        ),
        ask_limits={row.pool: row.ask_limit for row in tx.sql.execute(sa.select(pools.c.pool, pools.c.ask_limit))},
        cool_downs=running_cool_downs(tx),
        journal_lines=high_water(tx.sql),
    )


def _counts(tx: Tx, query: sa.Select[Any]) -> dict[Any, int]:
    return {tuple(row[:-1]): row[-1] for row in tx.sql.execute(query)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the journal with the row it is about.

    Attributes:
        pool: of the line, else of its instance.
        runner: of the job.
        owner: of the job.
        received_at: of the job.
        created_at: of the instance.
    """

    seq: int
    at: datetime
    kind: str
    object_id: str
    stimulus: str
    old: str | None
    new: str | None
    pool: str | None
    runner: str | None
    owner: str | None
    received_at: datetime | None
    created_at: datetime | None


def events(tx: Tx, after: int, also: Iterable[int] = ()) -> list[Event]:
    """The lines after a number, and those of `also` that are there; at most `TAIL`, in order."""
    wanted = journal.c.seq > after
    numbers = list(also)
    if numbers:
        wanted = sa.or_(wanted, journal.c.seq.in_(numbers))
    query = (
        sa.select(
            journal.c.seq,
            journal.c.at,
            journal.c.kind,
            journal.c.object_id,
            journal.c.stimulus,
            journal.c.old,
            journal.c.new,
            sa.func.coalesce(journal.c.pool, instances.c.pool).label("pool"),
            jobs.c.runner_key,
            jobs.c.owner,
            jobs.c.received_at,
            instances.c.created_at,
        )
        .outerjoin(jobs, jobs.c.job_key == journal.c.job_key)
        .outerjoin(instances, instances.c.instance_id == journal.c.instance_id)
        .where(wanted)
        .order_by(journal.c.seq)
        .limit(TAIL)
    )
    return [
        Event(
            seq=row.seq,
            at=row.at,
            kind=row.kind,
            object_id=row.object_id,
            stimulus=row.stimulus,
            old=row.old,
            new=row.new,
            pool=row.pool,
            runner=row.runner_key,
            owner=row.owner,
            received_at=row.received_at,
            created_at=row.created_at,
        )
        for row in tx.sql.execute(query)
    ]


def deleting_since(tx: Tx) -> dict[str, datetime]:
    """The instances that are being deleted, and since when."""
    query = sa.select(instances.c.instance_id, instances.c.state_at).where(instances.c.state == "deleting")
    return {row.instance_id: row.state_at for row in tx.sql.execute(query)}


def machines_by_placement(tx: Tx) -> dict[tuple[str, str], int]:
    """(pool, placement) -> instances that are not gone."""
    query = (
        sa.select(instances.c.pool, instances.c.placement, sa.func.count())
        .where(sa.text("instances.state <> 'gone'"))
        .group_by(instances.c.pool, instances.c.placement)
    )
    return _counts(tx, query)


def sweeping(tx: Tx) -> tuple[bool, str | None]:
    """Whether orphans are deleted, and why not; an empty store says yes."""
    row = tx.sql.execute(sa.select(stores.c.sweeping, stores.c.sweeping_reason)).one_or_none()
    return (True, None) if row is None else (row.sweeping, row.sweeping_reason)


def instance_id_of(tx: Tx, name: str) -> str | None:
    """The instance that an id or a machine's name means; the youngest where several bore it."""
    query = (
        sa.select(instances.c.instance_id)
        .where(sa.or_(instances.c.instance_id == name, instances.c.machine_id == name))
        .order_by(instances.c.created_at.desc())
        .limit(1)
    )
    found: str | None = tx.sql.execute(query).scalar_one_or_none()
    return found


def store_name(tx: Tx) -> str:
    """The store's random identity; empty before the first manager."""
    return str(tx.sql.execute(sa.select(stores.c.store_id)).scalar() or "")
