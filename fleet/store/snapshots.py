"""What planning reads: one pool at one moment, locked until the plan is applied."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime

import sqlalchemy as sa

from fleet.model.ids import InstanceId, JobKey, RunnerKey
from fleet.model.lifecycle import ACTIVE_LEASE, InstanceState
from fleet.model.policy import CoolDown, PoolLimits
from fleet.model.snapshot import InstanceView, PoolSnapshot, WaitingJob
from fleet.planning.cooling import cooled
from fleet.planning.throttle import refill
from fleet.store.database import Tx
from fleet.store.tables import cool_downs, instances, jobs, leases, pools, reservations

_ACTIVE = [state.value for state in ACTIVE_LEASE]


def pool_snapshot(tx: Tx, limits: PoolLimits, *, now: datetime, frozen_removals: bool = False) -> PoolSnapshot | None:
    """Lock the pool's row and read everything that planning may look at; None when the pool is unknown."""
    row = tx.sql.execute(sa.select(pools).where(pools.c.pool == limits.name).with_for_update()).one_or_none()
    if row is None:
        return None
    asking = tx.sql.execute(
        sa.select(sa.func.count())
        .select_from(reservations)
        .where(reservations.c.pool == limits.name, reservations.c.state == "asking")
    ).scalar_one()
    return PoolSnapshot(
        pool=limits.name,
        now=now,
        limits=limits,
        instances=_instances(tx, limits.name),
        asking=asking,
        waiting=_waiting(tx, limits.name),
        cool_downs=running_cool_downs(tx),
        tokens=refill(limits.throttle, row.tokens, row.tokens_at or now, now),
        frozen_removals=frozen_removals,
    )


def _instances(tx: Tx, pool: str) -> tuple[InstanceView, ...]:
    slots: dict[str, list[int]] = defaultdict(list)
    taken = (
        sa.select(leases.c.instance_id, leases.c.slot)
        .join(instances, instances.c.instance_id == leases.c.instance_id)
        .where(instances.c.pool == pool, leases.c.state.in_(_ACTIVE))
    )
    for row in tx.sql.execute(taken):
        slots[row.instance_id].append(row.slot)
    c = instances.c
    query = sa.select(
        c.instance_id,
        c.placement,
        c.state,
        c.state_at,
        c.state_by,
        c.created_at,
        c.idle_since,
        c.use_count,
        c.settings_version,
        c.unhealthy,
        c.drain_reason,
    ).where(c.pool == pool, c.state != InstanceState.GONE.value)
    return tuple(
        InstanceView(
            instance_id=InstanceId(row.instance_id),
            placement=row.placement,
            state=InstanceState(row.state),
            state_at=row.state_at,
            state_by=row.state_by,
            created_at=row.created_at,
            idle_since=row.idle_since,
            used_slots=tuple(slots.get(row.instance_id, ())),
            use_count=row.use_count,
            settings_version=row.settings_version,
            unhealthy=row.unhealthy,
            drain_reason=row.drain_reason,
        )
        for row in tx.sql.execute(query)
    )


def _waiting(tx: Tx, pool: str) -> tuple[WaitingJob, ...]:
    query = (
        sa.select(jobs.c.job_key, jobs.c.runner_key, jobs.c.gitlab_job_id, jobs.c.received_at, jobs.c.avoid)
        .where(jobs.c.pool == pool, jobs.c.state == "waiting", jobs.c.stop.is_(None))
        .order_by(jobs.c.received_at, jobs.c.job_key)
    )
    return tuple(
        WaitingJob(
            job=JobKey(row.job_key),
            runner=RunnerKey(row.runner_key),
            gitlab_job_id=row.gitlab_job_id,
            received_at=row.received_at,
            avoid=frozenset(InstanceId(i) for i in json.loads(row.avoid)),
        )
        for row in tx.sql.execute(query)
    )


def running_cool_downs(tx: Tx) -> tuple[CoolDown, ...]:
    """The scopes that may not be tried just now."""
    rows = tx.sql.execute(sa.select(cool_downs).where(cool_downs.c.until > tx.now).order_by(cool_downs.c.scope))
    return tuple(CoolDown(scope=row.scope, until=row.until, failures=row.failures, reason=row.reason) for row in rows)


def cool_down(tx: Tx, scope: str) -> CoolDown | None:
    """What is remembered of a scope, also when its time has passed."""
    row = tx.sql.execute(sa.select(cool_downs).where(cool_downs.c.scope == scope)).one_or_none()
    if row is None:
        return None
    return CoolDown(scope=row.scope, until=row.until, failures=row.failures, reason=row.reason)


def cool(tx: Tx, scope: str, reason: str, retry_after_s: float | None = None) -> None:
    """A scope failed: it is not tried for a while, which doubles with every failure in a row."""
    before = cool_down(tx, scope)
    remember_cool_down(tx, cooled(scope=scope, before=before, now=tx.now, reason=reason, retry_after_s=retry_after_s))


def remember_cool_down(tx: Tx, cold: CoolDown) -> None:
    """A scope failed: nobody tries it before its time, not after a restart either."""
    values = {"until": cold.until, "failures": cold.failures, "reason": cold.reason}
    # pools share scopes: what another has just remembered is changed, not fought over
    done = tx.sql.execute(sa.update(cool_downs).where(cool_downs.c.scope == cold.scope).values(**values))
    if done.rowcount == 0:
        tx.sql.execute(sa.insert(cool_downs).values(scope=cold.scope, **values))
    tx.journal("placement", cold.scope, "cooled_down", cold.reason, new=cold.until.isoformat())


def forget_cool_downs(tx: Tx, scopes: tuple[str, ...]) -> None:
    """A success in a scope clears what was remembered of it."""
    tx.sql.execute(sa.delete(cool_downs).where(cool_downs.c.scope.in_(scopes)))


def set_ask_limit(tx: Tx, pool: str, ask_limit: int) -> None:
    """How many polls of this pool may be in the air."""
    tx.sql.execute(sa.update(pools).where(pools.c.pool == pool).values(ask_limit=ask_limit))


def set_tokens(tx: Tx, pool: str, tokens: float | None, at: datetime) -> None:
    """What is left in the pool's creation throttle."""
    tx.sql.execute(sa.update(pools).where(pools.c.pool == pool).values(tokens=tokens, tokens_at=at))
