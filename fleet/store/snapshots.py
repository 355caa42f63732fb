"""What planning reads: one pool at one moment, locked until the plan is applied."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime, timedelta

import sqlalchemy as sa

from fleet.model.ids import InstanceId, JobKey, RunnerKey
from fleet.model.lifecycle import ACTIVE_LEASE, InstanceState
from fleet.model.policy import CoolDown, PoolLimits
from fleet.model.snapshot import InstanceView, PoolSnapshot, WaitingJob
from fleet.planning.cooling import cooled
from fleet.planning.throttle import refill
from fleet.store.database import Tx
from fleet.store.leases import asking_of
from fleet.store.statements import change, find
from fleet.store.tables import Instant, cool_downs, instances, jobs, leases, pools

_ACTIVE = [state.value for state in ACTIVE_LEASE]
_TAKEN = (
    sa.select(leases.c.instance_id, leases.c.slot)
    .join(instances, instances.c.instance_id == leases.c.instance_id)
    .where(instances.c.pool == sa.bindparam("pool_"), leases.c.state.in_(_ACTIVE))
)
_LIVING = sa.select(
    instances.c.instance_id,
    instances.c.placement,
    instances.c.state,
    instances.c.state_at,
    instances.c.state_by,
    instances.c.created_at,
    instances.c.idle_since,
    instances.c.use_count,
    instances.c.settings_version,
    instances.c.unhealthy,
    instances.c.drain_reason,
    instances.c.no_room,
).where(instances.c.pool == sa.bindparam("pool_"), instances.c.state != InstanceState.GONE.value)
_WAITING = (
    sa.select(jobs.c.job_key, jobs.c.runner_key, jobs.c.gitlab_job_id, jobs.c.received_at, jobs.c.avoid)
    .where(jobs.c.pool == sa.bindparam("pool_"), jobs.c.state == "waiting", jobs.c.stop.is_(None))
    .order_by(jobs.c.received_at, jobs.c.job_key)
)
_COLD = (
    sa.select(cool_downs).where(cool_downs.c.until > sa.bindparam("now_", type_=Instant())).order_by(cool_downs.c.scope)
)


def pool_snapshot(
    tx: Tx,
    limits: PoolLimits,
    *,
    now: datetime,
    frozen_removals: bool = False,
    calendar_ahead: timedelta = timedelta(0),
) -> PoolSnapshot | None:
    """Lock the pool's row and read everything that planning may look at; None when the pool is unknown."""
    row = find(tx, pools.c.pool, limits.name, pools.c.tokens, pools.c.tokens_at, lock=True)
    if row is None:
        return None
    return PoolSnapshot(
        pool=limits.name,
        now=now,
        limits=limits,
        instances=_instances(tx, limits.name),
        asking=asking_of(tx, limits.name),
        waiting=_waiting(tx, limits.name),
        cool_downs=running_cool_downs(tx),
        tokens=refill(limits.throttle, row.tokens, row.tokens_at or now, now),
        frozen_removals=frozen_removals,
        calendar_ahead=calendar_ahead,
    )


def _instances(tx: Tx, pool: str) -> tuple[InstanceView, ...]:
    slots: dict[str, list[int]] = defaultdict(list)
    for row in tx.sql.execute(_TAKEN, {"pool_": pool}):
        slots[row.instance_id].append(row.slot)
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
            no_room=row.no_room,
        )
        for row in tx.sql.execute(_LIVING, {"pool_": pool})
    )


def _waiting(tx: Tx, pool: str) -> tuple[WaitingJob, ...]:
    return tuple(
        WaitingJob(
            job=JobKey(row.job_key),
            runner=RunnerKey(row.runner_key),
            gitlab_job_id=row.gitlab_job_id,
            received_at=row.received_at,
            avoid=frozenset(InstanceId(i) for i in json.loads(row.avoid)),
        )
        for row in tx.sql.execute(_WAITING, {"pool_": pool})
    )


def running_cool_downs(tx: Tx) -> tuple[CoolDown, ...]:
    """The scopes that may not be tried just now."""
    rows = tx.sql.execute(_COLD, {"now_": tx.now})
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
    """A success in a scope clears what was remembered of it; one that began before the last failure says nothing."""
    tx.sql.execute(sa.delete(cool_downs).where(cool_downs.c.scope.in_(scopes), cool_downs.c.until <= tx.now))


def set_ask_limit(tx: Tx, pool: str, ask_limit: int) -> None:
    """How many polls of this pool may be in the air."""
    change(tx, pools.c.pool, pool, ask_limit=ask_limit)


def set_tokens(tx: Tx, pool: str, tokens: float | None, at: datetime) -> None:
    """What is left in the pool's creation throttle."""
    tx.sql.execute(sa.update(pools).where(pools.c.pool == pool).values(tokens=tokens, tokens_at=at))
