"""Managers and what they own: one heartbeat keeps every claim of a manager, and what the dead owned is taken over.

A claim is the pair (owner, epoch) in the row of a job, a pool or a runner. It holds while its owner's `alive_until`
lies ahead by the store's clock. Whoever takes a row over raises its epoch, so that a late writer finds no row to change
and the agents refuse its commands.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import ACTIVE_LEASE
from fleet.store.database import Tx
from fleet.store.tables import OPEN, jobs, journal, leases, managers, pools, reservations, runners, stores


def store_identity(tx: Tx, fresh_id: str) -> str:
    """The store's random id; `fresh_id` becomes it on the first call."""
    mine = sa.select(stores.c.store_id)
    found: str | None = tx.sql.execute(mine).scalar()
    if found is None and tx.sql.dialect.name == "postgresql":
        # two managers that start together on an empty database must come to one identity
        tx.sql.exec_driver_sql("LOCK TABLE stores IN EXCLUSIVE MODE")
        found = tx.sql.execute(mine).scalar()
    if found is None:
        tx.sql.execute(sa.insert(stores).values(store_id=fresh_id, created_at=tx.now, sweeping=True))
        tx.journal("store", fresh_id, "created", "the database was empty")
        return fresh_id
    return found


def may_sweep(tx: Tx) -> tuple[bool, str | None]:
    """Whether orphans may be deleted, and why not."""
    row = tx.sql.execute(sa.select(stores.c.sweeping, stores.c.sweeping_reason)).one()
    return row.sweeping, row.sweeping_reason


def set_sweeping(tx: Tx, on: bool, reason: str) -> None:
    """Let orphans be deleted, or not."""
    tx.sql.execute(sa.update(stores).values(sweeping=on, sweeping_reason=None if on else reason))
    tx.journal("store", "sweeping", "switched", reason, new="on" if on else "off")


def begin_session(
    tx: Tx, me: ManagerId, *, session: str, version: str, host: str, api: str | None, ttl: timedelta
) -> None:
    """Start as manager `me`: claims of an earlier session with this id become ours under new epochs."""
    tx.sql.execute(sa.delete(managers).where(managers.c.manager_id == me))
    tx.sql.execute(
        sa.insert(managers).values(
            manager_id=me,
            session=session,
            version=version,
            host=host,
            api=api,
            state="running",
            started_at=tx.now,
            alive_until=tx.now + ttl,
        )
    )
    for table in (jobs, pools, runners):
        where = sa.and_(table.c.owner == me, _unsettled()) if table is jobs else table.c.owner == me
        tx.sql.execute(sa.update(table).where(where).values(epoch=table.c.epoch + 1))
    # the polls of the earlier session died with it
    tx.sql.execute(sa.delete(reservations).where(reservations.c.manager_id == me, reservations.c.state == "asking"))
    tx.journal("manager", me, "started", f"fleetctl {version} started on {host}")


def session_of(tx: Tx, me: str) -> tuple[str, datetime] | None:
    """The session that holds this id and when its claims run out; None when nobody alive holds it."""
    row = tx.sql.execute(
        sa.select(managers.c.session, managers.c.alive_until).where(
            managers.c.manager_id == me, managers.c.alive_until > tx.now
        )
    ).one_or_none()
    return None if row is None else (row.session, row.alive_until)


def heartbeat(tx: Tx, me: ManagerId, session: str, ttl: timedelta, *, alone: bool = False) -> bool:
    """Renew every claim; False when they had run out or another session has taken the id: nothing may be trusted.

    `alone`: nobody else can reach the store, so claims that had run out are still ours.
    """
    in_time = sa.true() if alone else managers.c.alive_until > tx.now
    done = tx.sql.execute(
        sa.update(managers)
        .where(managers.c.manager_id == me, managers.c.session == session, in_time)
        .values(alive_until=tx.now + ttl)
    )
    return done.rowcount == 1


def set_state(tx: Tx, me: ManagerId, state: str, reason: str) -> None:
    """Say for everyone what this manager is doing: running, draining, stopped."""
    tx.sql.execute(sa.update(managers).where(managers.c.manager_id == me).values(state=state))
    tx.journal("manager", me, state, reason, new=state)


def end_session(tx: Tx, me: ManagerId, session: str, reason: str) -> None:
    """Let the claims run out now; the polls' reservations are given back."""
    tx.sql.execute(
        sa.update(managers)
        .where(managers.c.manager_id == me, managers.c.session == session)
        .values(alive_until=tx.now, state="stopped")
    )
    tx.sql.execute(sa.delete(reservations).where(reservations.c.manager_id == me, reservations.c.state == "asking"))
    tx.journal("manager", me, "stopped", reason)


def _dead(owner: sa.Column[str | None] | sa.Column[str], tx: Tx) -> sa.ColumnElement[bool]:
    alive = sa.select(managers.c.manager_id).where(managers.c.alive_until > tx.now)
    return owner.not_in(alive)


def _unsettled() -> sa.ColumnElement[bool]:
    """Open, or ended with a machine that is not known to be clean: both need somebody to see to them."""
    held = sa.select(leases.c.job_key).where(leases.c.state.in_([state.value for state in ACTIVE_LEASE]))
    return sa.or_(OPEN, jobs.c.job_key.in_(held))


def claim_pools(tx: Tx, me: ManagerId) -> dict[str, int]:
    """Claim every pool that nobody alive owns; pool -> epoch of all that are ours now."""
    tx.sql.execute(
        sa.update(pools)
        .where(sa.or_(pools.c.owner.is_(None), _dead(pools.c.owner, tx)))
        .values(owner=me, epoch=pools.c.epoch + 1)
    )
    ours = sa.select(pools.c.pool, pools.c.epoch).where(pools.c.owner == me)
    return {row.pool: row.epoch for row in tx.sql.execute(ours)}


def take_over_jobs(tx: Tx, me: ManagerId) -> list[str]:
    """Make the jobs of dead managers ours that are open, or whose machine is not clean yet; returns their keys."""
    lost = tx.sql.execute(
        sa.update(jobs)
        .where(_unsettled(), jobs.c.owner != me, _dead(jobs.c.owner, tx))
        .values(owner=me, epoch=jobs.c.epoch + 1)
        .returning(jobs.c.job_key)
    ).all()
    dead = sa.select(managers.c.manager_id).where(managers.c.alive_until <= tx.now)
    tx.sql.execute(sa.delete(reservations).where(reservations.c.state == "asking", reservations.c.manager_id.in_(dead)))
    for row in lost:
        tx.journal("job", row.job_key, "taken_over", f"its manager is gone; {me} goes on with it", job_key=row.job_key)
    return [row.job_key for row in lost]


def holds_pool(tx: Tx, pool: str, me: ManagerId, epoch: int) -> bool:
    """Whether our claim on a pool still holds; locks the row to the end of the transaction."""
    row = tx.sql.execute(
        sa.select(pools.c.owner, pools.c.epoch).where(pools.c.pool == pool).with_for_update()
    ).one_or_none()
    return row is not None and row.owner == me and row.epoch == epoch


def newest_instant(tx: Tx) -> datetime:
    """The latest instant that the journal knows; our clock must not be behind it."""
    newest = tx.sql.execute(sa.select(journal.c.at).order_by(journal.c.seq.desc()).limit(1)).scalar()
    return newest or tx.now
