"""Rows of pools and runners, with the settings they were last given; and the intents to create machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet.model.ids import PoolName, RequestId
from fleet.model.instance import OpenRequest
from fleet.model.lifecycle import InstanceState
from fleet.store.database import Tx
from fleet.store.tables import cool_downs, create_requests, instances, jobs, managers, pools, reservations, runners


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A pool as the store knows it."""

    pool: PoolName
    plugin: str
    settings: Any
    fingerprint: str
    settings_version: int
    client_key: str
    client_public_key: str
    retired_at: datetime | None
    ask_limit: int


def all_pools(tx: Tx) -> list[PoolRow]:
    """Every pool, retired ones included."""
    return [
        PoolRow(
            pool=PoolName(row.pool),
            plugin=row.plugin,
            settings=tx.seal.open_json(row.settings),
            fingerprint=row.fingerprint,
            settings_version=row.settings_version,
            client_key=tx.seal.open(row.client_key).decode(),
            client_public_key=row.client_public_key,
            retired_at=row.retired_at,
            ask_limit=row.ask_limit,
        )
        for row in tx.sql.execute(sa.select(pools).order_by(pools.c.pool))
    ]


def put_pool(tx: Tx, pool: str, *, plugin: str, settings: Any, fingerprint: str, keys: tuple[str, str]) -> int:
    """Store a pool's settings; returns their version, which grows when machines made before are outdated.

    `keys` (private, public) is used for a pool that is new; an old one keeps its own.
    """
    row = tx.sql.execute(sa.select(pools).where(pools.c.pool == pool).with_for_update()).one_or_none()
    sealed = tx.seal.close_json(settings)
    if row is None:
        tx.sql.execute(
            sa.insert(pools).values(
                pool=pool,
                plugin=plugin,
                settings=sealed,
                fingerprint=fingerprint,
                settings_version=1,
                client_key=tx.seal.close(keys[0].encode()),
                client_public_key=keys[1],
            )
        )
        tx.journal("pool", pool, "appeared", f"the configuration names pool {pool} ({plugin})", pool=pool)
        return 1
    version: int = row.settings_version + (row.fingerprint != fingerprint)
    if version != row.settings_version:
        tx.journal("pool", pool, "changed", "its machines are outdated: they will be replaced when free", pool=pool)
    if row.retired_at is not None:
        tx.journal("pool", pool, "returned", "the configuration names it again", pool=pool)
    tx.sql.execute(
        sa.update(pools)
        .where(pools.c.pool == pool)
        .values(
            plugin=plugin,
            settings=sealed,
            fingerprint=fingerprint,
            settings_version=version,
            retired_at=None,
        )
    )
    return version


def retire_pool(tx: Tx, pool: str) -> None:
    """The configuration names it no more: no polls, target 0; jobs finish and machines go."""
    done = tx.sql.execute(
        sa.update(pools)
        .where(pools.c.pool == pool, pools.c.retired_at.is_(None))
        .values(retired_at=tx.now, ask_limit=0)
    )
    if done.rowcount:
        tx.journal("pool", pool, "retired", "the configuration no longer names it", pool=pool)


def rename_pool(tx: Tx, old: str, new: str) -> bool:
    """`renamed_from`: the machines, jobs and memory of `old` go on under `new`; False when there is no `old`."""
    there = tx.sql.execute(sa.select(pools).where(pools.c.pool.in_([old, new]))).mappings().all()
    names = {row["pool"] for row in there}
    if old not in names or new in names:
        return False
    row = dict(next(row for row in there if row["pool"] == old))
    tx.sql.execute(sa.insert(pools).values(**{**row, "pool": new, "retired_at": None}))
    for table in (instances, create_requests, jobs, runners, reservations):
        tx.sql.execute(sa.update(table).where(table.c.pool == old).values(pool=new))
    _rename_cool_downs(tx, old, new)
    tx.sql.execute(sa.delete(pools).where(pools.c.pool == old))
    tx.journal("pool", new, "renamed", f"pool {old} is now called {new}", old=old, new=new, pool=new)
    return True


def _rename_cool_downs(tx: Tx, old: str, new: str) -> None:
    before, after = f"placement:{old}/", f"placement:{new}/"
    for scope in tx.sql.execute(sa.select(cool_downs.c.scope)).scalars().all():
        if scope.startswith(before):
            tx.sql.execute(
                sa.update(cool_downs).where(cool_downs.c.scope == scope).values(scope=after + scope[len(before) :])
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRow:
    """A runner as the store knows it."""

    runner_key: str
    name: str
    url: str
    pool: str
    settings: Any
    token: str
    token_obtained_at: datetime | None
    token_expires_at: datetime | None
    retired_at: datetime | None


def all_runners(tx: Tx) -> list[RunnerRow]:
    """Every runner, retired ones included."""
    return [
        RunnerRow(
            runner_key=row.runner_key,
            name=row.name,
            url=row.url,
            pool=row.pool,
            settings=tx.seal.open_json(row.settings),
            token=tx.seal.open(row.token).decode(),
            token_obtained_at=row.token_obtained_at,
            token_expires_at=row.token_expires_at,
            retired_at=row.retired_at,
        )
        for row in tx.sql.execute(sa.select(runners).order_by(runners.c.runner_key))
    ]


def put_runner(
    tx: Tx,
    runner_key: str,
    *,
    name: str,
    url: str,
    pool: str,
    settings: Any,
    token: str,
    obtained_at: datetime | None,
    expires_at: datetime | None,
) -> None:
    """Store what the configuration says of a runner."""
    values = {
        "name": name,
        "url": url,
        "pool": pool,
        "settings": tx.seal.close_json(settings),
        "token": tx.seal.close(token.encode()),
        "token_obtained_at": obtained_at,
        "token_expires_at": expires_at,
        "retired_at": None,
    }
    done = tx.sql.execute(sa.update(runners).where(runners.c.runner_key == runner_key).values(**values))
    if done.rowcount == 0:
        tx.sql.execute(sa.insert(runners).values(runner_key=runner_key, **values))
        tx.journal("runner", runner_key, "appeared", f"the configuration names runner {name}", pool=pool)


def retire_runner(tx: Tx, runner_key: str) -> None:
    """The configuration names it no more: its jobs finish, it asks for no more."""
    done = tx.sql.execute(
        sa.update(runners)
        .where(runners.c.runner_key == runner_key, runners.c.retired_at.is_(None))
        .values(retired_at=tx.now)
    )
    if done.rowcount:
        tx.journal("runner", runner_key, "retired", "the configuration no longer names it")


def add_request(
    tx: Tx, *, request_id: str, pool: str, placement: str, count: int, parameters: Any, reason: str
) -> None:
    """Commit the intent to have `count` machines, before the provider hears of it (law 2)."""
    tx.sql.execute(
        sa.insert(create_requests).values(
            request_id=request_id,
            pool=pool,
            placement=placement,
            count=count,
            parameters=tx.seal.close_json(parameters),
            state="open",
            created_at=tx.now,
            due_at=tx.now,
        )
    )
    tx.journal("request", request_id, "intended", reason, new="open", pool=pool)


def open_requests(tx: Tx, names: list[str]) -> list[OpenRequest]:
    """The intents of these pools that are due to be brought before their provider, oldest first."""
    query = (
        sa.select(create_requests)
        .where(
            create_requests.c.pool.in_(names),
            create_requests.c.state == "open",
            create_requests.c.due_at <= tx.now,
        )
        .order_by(create_requests.c.created_at, create_requests.c.request_id)
    )
    return [
        OpenRequest(
            request_id=RequestId(row.request_id),
            pool=PoolName(row.pool),
            placement=row.placement,
            count=row._mapping["count"],
            parameters=tx.seal.open_json(row.parameters),
            attempts=row.attempts,
            created_at=row.created_at,
        )
        for row in tx.sql.execute(query)
    ]


def unwanted_requests(tx: Tx, names: list[str]) -> list[str]:
    """The open intents of these pools whose every instance has been given up: nobody waits for their machines."""
    waits = sa.select(instances.c.instance_id).where(
        instances.c.request_id == create_requests.c.request_id, instances.c.state == InstanceState.REQUESTED.value
    )
    query = sa.select(create_requests.c.request_id).where(
        create_requests.c.pool.in_(names), create_requests.c.state == "open", ~sa.exists(waits)
    )
    return list(tx.sql.execute(query).scalars())


def close_request(tx: Tx, request_id: str, state: str, reason: str) -> None:
    """The provider has answered: `filled` or `failed`."""
    done = tx.sql.execute(
        sa.update(create_requests)
        .where(create_requests.c.request_id == request_id, create_requests.c.state == "open")
        .values(state=state, error=None if state == "filled" else reason, parameters=b"")
    )
    if done.rowcount:
        tx.journal("request", request_id, state, reason, old="open", new=state)


def retry_request(tx: Tx, request_id: str, *, due_at: datetime, error: str) -> None:
    """It is unknown what became of it: the same request, with the same token, is made again at `due_at`."""
    tx.sql.execute(
        sa.update(create_requests)
        .where(create_requests.c.request_id == request_id)
        .values(due_at=due_at, error=error, attempts=create_requests.c.attempts + 1)
    )


def open_request_ids(tx: Tx) -> set[str]:
    """The requests that the provider's answer is awaited for."""
    query = sa.select(create_requests.c.request_id).where(create_requests.c.state == "open")
    return set(tx.sql.execute(query).scalars())


def claim_runner(tx: Tx, runner_key: str, me: str, token: str) -> bool:
    """Whether this manager may renew the runner's token now: it is still `token`, and nobody alive is at it."""
    row = tx.sql.execute(sa.select(runners).where(runners.c.runner_key == runner_key).with_for_update()).one_or_none()
    if row is None or tx.seal.open(row.token).decode() != token:
        return False
    alive = sa.select(managers.c.manager_id).where(managers.c.alive_until > tx.now)
    others = row.owner not in (None, me) and row.owner in set(tx.sql.execute(alive).scalars())
    if others:
        return False
    tx.sql.execute(
        sa.update(runners).where(runners.c.runner_key == runner_key).values(owner=me, epoch=runners.c.epoch + 1)
    )
    return True


def renew_token(
    tx: Tx, runner_key: str, *, token: str, obtained_at: datetime, expires_at: datetime | None, old: str
) -> None:
    """Keep a renewed token; the claim ends with it."""
    row = tx.sql.execute(sa.select(runners.c.token).where(runners.c.runner_key == runner_key)).one()
    assert tx.seal.open(row.token).decode() == old, "renewed by two at once"
    tx.sql.execute(
        sa.update(runners)
        .where(runners.c.runner_key == runner_key)
        .values(
            token=tx.seal.close(token.encode()),
            token_obtained_at=obtained_at,
            token_expires_at=expires_at,
            owner=None,
        )
    )
    tx.journal("runner", runner_key, "token_renewed", "three quarters of its token's life had passed")
