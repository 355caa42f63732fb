"""Rows of instances: every change of state goes through `move`, every removal through `remove`, the gate of law 1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from fleet.model.ids import InstanceId, PoolName, RequestId
from fleet.model.instance import Instance
from fleet.model.lifecycle import ACTIVE_LEASE, INSTANCE_DEADLINES_S, InstanceState, check_instance
from fleet.store.database import Tx
from fleet.store.tables import instances, jobs, leases

_ACTIVE = [state.value for state in ACTIVE_LEASE]
SAME_DEADLINE: Mapping[str, Any] = {"state_by": instances.c.state_by}  # for `move`: the time goes on counting


def active_leases_of(instance_id: sa.ColumnElement[str] | str) -> sa.Select[int]:
    """Counts the active leases of an instance."""
    return (
        sa.select(sa.func.count())
        .select_from(leases)
        .where(leases.c.instance_id == instance_id, leases.c.state.in_(_ACTIVE))
    )


# Built once: these are asked every second or oftener, however little happens.
_IN = (
    sa.select(instances, active_leases_of(instances.c.instance_id).scalar_subquery().label("leases"))
    .where(
        instances.c.pool.in_(sa.bindparam("pools_", expanding=True)),
        instances.c.state.in_(sa.bindparam("states_", expanding=True)),
    )
    .order_by(instances.c.created_at, instances.c.instance_id)
    .limit(sa.bindparam("limit_"))
)
_EXPECTING = (
    sa.select(instances.c.pool)
    .where(
        instances.c.pool.in_(sa.bindparam("pools_", expanding=True)),
        instances.c.state != InstanceState.GONE.value,
        sa.or_(
            instances.c.state.in_(sa.bindparam("states_", expanding=True)),
            instances.c.unreachable_since.is_not(None),
        ),
    )
    .distinct()
)


def instances_in(
    tx: Tx, pools: Iterable[str], states: Iterable[InstanceState], *, limit: int = 100_000
) -> list[Instance]:
    """The instances of `pools` that are in one of `states`, oldest first."""
    asked = {"pools_": list(pools), "states_": [state.value for state in states], "limit_": limit}
    return [_value(tx, row) for row in tx.sql.execute(_IN, asked)]


def pools_expecting(tx: Tx, pools: Iterable[str], states: Iterable[InstanceState]) -> set[str]:
    """Those of these pools that have an instance in one of these states, or one that cannot be reached."""
    asked = {"pools_": list(pools), "states_": [state.value for state in states]}
    return set(tx.sql.execute(_EXPECTING, asked).scalars())


def instance(tx: Tx, instance_id: InstanceId) -> Instance | None:
    """One instance; None when there is no such row."""
    query = sa.select(instances, active_leases_of(instances.c.instance_id).scalar_subquery().label("leases")).where(
        instances.c.instance_id == instance_id
    )
    row = tx.sql.execute(query).one_or_none()
    return None if row is None else _value(tx, row)


def _address(tx: Tx, kept: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kept or "{}")
    sealed = found.pop("sealed", None)
    return found if sealed is None else found | tx.seal.open_json(sealed.encode())


def sealed_address(tx: Tx, address: Mapping[str, Any], secret: Mapping[str, Any]) -> str:
    """How a machine is reached, as its row keeps it: what is secret is sealed."""
    whole = dict(address)
    if secret:
        whole["sealed"] = tx.seal.close_json(dict(secret)).decode()
    return json.dumps(whole)


def _value(tx: Tx, row: Any) -> Instance:
    return Instance(
        instance_id=InstanceId(row.instance_id),
        pool=PoolName(row.pool),
        request_id=RequestId(row.request_id),
        placement=row.placement,
        state=InstanceState(row.state),
        state_at=row.state_at,
        state_by=row.state_by,
        created_at=row.created_at,
        machine_id=row.machine_id,
        observed=row.observed,
        missed_listings=row.missed_listings,
        address=_address(tx, row.address),
        host_keys=tuple(json.loads(row.host_keys or "[]")),
        facts=json.loads(row.facts or "{}"),
        unreachable_since=row.unreachable_since,
        unhealthy=row.unhealthy,
        no_room=row.no_room,
        due_at=row.due_at,
        attempts=row.attempts,
        leases=row.leases,
    )


def add(
    tx: Tx,
    *,
    instance_id: str,
    pool: str,
    request_id: str,
    placement: str,
    settings_version: int,
    reason: str,
    state: InstanceState = InstanceState.REQUESTED,
    **columns: Any,
) -> None:
    """Add an instance; the intent to have it stands in its request."""
    row = {
        "instance_id": instance_id,
        "pool": pool,
        "request_id": request_id,
        "placement": placement,
        "settings_version": settings_version,
        "state": state.value,
        "state_at": tx.now,
        "state_by": _deadline(tx, state),
        "created_at": tx.now,
        **columns,
    }
    tx.sql.execute(sa.insert(instances).values(**row))
    tx.journal("instance", instance_id, "wanted", reason, new=state.value, pool=pool, instance_id=instance_id)


def _deadline(tx: Tx, state: InstanceState) -> Any:
    seconds = INSTANCE_DEADLINES_S.get(state)
    return None if seconds is None else tx.now + timedelta(seconds=seconds)


def move(
    tx: Tx,
    instance_id: InstanceId | str,
    new: InstanceState,
    *,
    stimulus: str,
    reason: str,
    only_from: Iterable[InstanceState] = (),
    **columns: Any,
) -> bool:
    """Bring an instance into another state; False when it is not in one of `only_from` any more.

    Raises:
        IllegalTransition: the life-cycle has no such change.
    """
    assert new is not InstanceState.DELETING, "removal has one gate: remove()"
    return _move(tx, str(instance_id), new, stimulus=stimulus, reason=reason, only_from=only_from, columns=columns)


def _move(
    tx: Tx,
    instance_id: str,
    new: InstanceState,
    *,
    stimulus: str,
    reason: str,
    only_from: Iterable[InstanceState],
    columns: dict[str, Any],
) -> bool:
    row = tx.sql.execute(
        sa.select(instances.c.state, instances.c.pool).where(instances.c.instance_id == instance_id).with_for_update()
    ).one_or_none()
    if row is None:
        return False
    old = InstanceState(row.state)
    allowed = tuple(only_from)
    if allowed and old not in allowed:
        return False
    check_instance(instance_id, old, new)
    tx.sql.execute(
        sa.update(instances)
        .where(instances.c.instance_id == instance_id)
        .values(
            **{
                "state": new.value,
                "state_at": tx.now,
                "state_by": _deadline(tx, new),
                "due_at": None,
                "attempts": 0,
                **({"gone_at": tx.now} if new is InstanceState.GONE else {}),
                **columns,
            }
        )
    )
    tx.journal(
        "instance",
        instance_id,
        stimulus,
        reason,
        old=old.value,
        new=new.value,
        pool=row.pool,
        instance_id=instance_id,
    )
    return True


def remove(tx: Tx, instance_id: InstanceId | str, *, stimulus: str, reason: str, force: bool = False) -> bool:
    """Send an instance to its end, unless a job holds it: the one gate through which every removal goes (law 1).

    False when a lease is active (and `force`, a person's word, is not given) or the instance is on its way already.
    """
    # the row is locked first: a grant that comes at the same moment waits, and then finds no ready instance
    row = tx.sql.execute(
        sa.select(instances.c.state).where(instances.c.instance_id == instance_id).with_for_update()
    ).one_or_none()
    if row is None or row.state in (InstanceState.DELETING.value, InstanceState.GONE.value):
        return False
    if not force and tx.sql.execute(active_leases_of(str(instance_id))).scalar_one():
        return False
    return _move(
        tx,
        str(instance_id),
        InstanceState.DELETING,
        stimulus=stimulus,
        reason=reason,
        only_from=(),
        columns={"end_reason": reason},
    )


def update(tx: Tx, instance_id: InstanceId | str, **columns: Any) -> None:
    """Change what is no state: an address, facts, when to try again."""
    tx.sql.execute(sa.update(instances).where(instances.c.instance_id == instance_id).values(**columns))


def blame(tx: Tx, instance_id: InstanceId | str, reason: str) -> None:
    """Give this instance no further job; planning drains it."""
    changed = tx.sql.execute(
        sa.update(instances)
        .where(instances.c.instance_id == instance_id, instances.c.unhealthy.is_(None))
        .values(unhealthy=reason)
        .returning(instances.c.pool)
    ).one_or_none()
    if changed is not None:
        tx.journal(
            "instance",
            str(instance_id),
            "unhealthy",
            reason,
            pool=changed.pool,
            instance_id=str(instance_id),
        )


def end_reason(tx: Tx, instance_id: str) -> str | None:
    """Why an instance was sent to its end; None while it was not."""
    query = sa.select(instances.c.end_reason).where(instances.c.instance_id == instance_id)
    return tx.sql.execute(query).scalar_one_or_none()


def unnamed_of(tx: Tx, request_id: str) -> list[str]:
    """The instances of a request that no machine is known for, in a fixed order."""
    query = (
        sa.select(instances.c.instance_id)
        .where(
            instances.c.request_id == request_id,
            instances.c.machine_id.is_(None),
            instances.c.state == InstanceState.REQUESTED.value,
        )
        .order_by(instances.c.instance_id)
    )
    return list(tx.sql.execute(query).scalars())


def machines_of(tx: Tx, request_id: str) -> set[str]:
    """The machines that instances of a request are known to be."""
    query = sa.select(instances.c.machine_id).where(
        instances.c.request_id == request_id, instances.c.machine_id.is_not(None)
    )
    return {machine_id for machine_id in tx.sql.execute(query).scalars() if machine_id is not None}


def with_leases_of(tx: Tx, owner: str) -> set[str]:
    """The instances that run jobs of a manager."""
    query = (
        sa.select(leases.c.instance_id)
        .join(jobs, jobs.c.job_key == leases.c.job_key)
        .where(leases.c.state.in_(_ACTIVE), jobs.c.owner == owner)
    )
    return set(tx.sql.execute(query).scalars())


def living_machines(tx: Tx) -> set[str]:
    """The machines of all instances that are not gone."""
    query = sa.select(instances.c.machine_id).where(
        instances.c.machine_id.is_not(None), instances.c.state != InstanceState.GONE.value
    )
    return {machine_id for machine_id in tx.sql.execute(query).scalars() if machine_id is not None}


def machines_left(tx: Tx, names: Iterable[str]) -> int:
    """How many instances of these pools are not gone."""
    query = (
        sa.select(sa.func.count())
        .select_from(instances)
        .where(instances.c.pool.in_(list(names)), instances.c.state != InstanceState.GONE.value)
    )
    return tx.sql.execute(query).scalar_one()
