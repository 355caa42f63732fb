"""What people read: pools, instances, managers, runners and cool-downs, page by page, and no secret.

Every value is a frozen dataclass whose fields are JSON-able, so that `dataclasses.asdict` is the answer of an API:
instants are ISO 8601 in UTC, states are their names. A listing takes `limit` and `after`, the `next` of the page
before, and is ordered so that a page is not disturbed by rows that come or go. Jobs are in `fleet.store.stories`; why
one waits is planning's to say, not the rows'.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from fleet.model.lifecycle import ACTIVE_LEASE, InstanceState
from fleet.store.database import Tx
from fleet.store.engine import StoreError
from fleet.store.tables import cool_downs, instances, jobs, leases, managers, pools, reservations, runners

T = TypeVar("T")
PAGE = 100
_ACTIVE = [state.value for state in ACTIVE_LEASE]
MANY = sa.func.count().label("many")
IS_OPEN = sa.text("jobs.state NOT IN ('finished', 'abandoned')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some rows of a listing; `next` is the `after` of the next page, None at the end."""

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """A pool's slots.

    Attributes:
        used: held by jobs.
        free: of ready, healthy instances, held by nobody.
        asking: promised to polls in the air.
        owed: promised to jobs that were received.
        waiting: jobs that wait for one.
    """

    used: int = 0
    free: int = 0
    asking: int = 0
    owed: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPool:
    """A pool; `instances` counts those of each state but gone, `outdated` those made with older settings."""

    pool: str
    plugin: str
    owner: str | None
    epoch: int
    settings_version: int
    capacity_per_instance: int
    max_instances: int
    ask_limit: int
    retired_at: str | None
    instances: Mapping[str, int]
    outdated: int
    unhealthy: int
    slots: Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedSlot:
    """A slot of an instance and the job in it."""

    slot: int
    lease_id: str
    lease_state: str
    job_key: str
    gitlab_job_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedInstance:
    """An instance and what runs on it."""

    instance_id: str
    pool: str
    placement: str
    state: str
    state_at: str
    state_by: str | None
    created_at: str
    ready_at: str | None
    idle_since: str | None
    gone_at: str | None
    machine_id: str | None
    request_id: str
    observed: str | None
    observed_at: str | None
    address_internal: str | None
    address_external: str | None
    use_count: int
    settings_version: int
    unhealthy: str | None
    no_room: str | None
    unreachable_since: str | None
    drain_reason: str | None
    end_reason: str | None
    slots: tuple[UsedSlot, ...]


def instant(value: datetime | None) -> str | None:
    """An instant as listings show it."""
    return None if value is None else value.isoformat()


def cursor(at: datetime, name: str) -> str:
    """Where a page ends that is ordered by an instant and a name."""
    return f"{at.isoformat()}|{name}"


def beyond(after: str, at: sa.Column[Any], name: sa.Column[str], *, newest_first: bool = False) -> Any:
    """The rows that come after a cursor.

    Raises:
        StoreError: it is no cursor of ours.
    """
    told, _, key = after.partition("|")
    try:
        position = sa.tuple_(sa.literal(datetime.fromisoformat(told), at.type), sa.literal(key))
    except ValueError as exc:
        raise StoreError(f"{after!r} is not where a page ends; take `next` of the page before as it is") from exc
    row = sa.tuple_(at, name)
    return row < position if newest_first else row > position


def page(found: Sequence[T], limit: int, cursors: Sequence[str]) -> Page[T]:
    """One row more than `limit` was asked for, to know whether there is a next page."""
    return Page(items=tuple(found[:limit]), next=cursors[limit - 1] if len(found) > limit else None)


def list_pools(tx: Tx, *, limit: int = PAGE, after: str = "", only: Iterable[str] = ()) -> Page[ListedPool]:
    """Pools by name, retired ones included; those in `only` where any are given."""
    query = sa.select(pools).where(pools.c.pool > after).order_by(pools.c.pool).limit(limit + 1)
    wanted = list(only)
    rows = tx.sql.execute(query.where(pools.c.pool.in_(wanted)) if wanted else query).all()
    census = _Census(tx, [row.pool for row in rows])
    found = [_pool(tx, row, census) for row in rows]
    return page(found, limit, [row.pool for row in rows])


class _Census:
    """Counts for some pools, in one query each."""

    def __init__(self, tx: Tx, names: list[str]) -> None:
        self.instances: dict[str, Counter[str]] = defaultdict(Counter)
        self.outdated: Counter[str] = Counter()
        self.unhealthy: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.well: Counter[str] = Counter()  # ready and healthy
        self.used_of_well: Counter[str] = Counter()
        c, r = instances.c, reservations.c
        sick = c.unhealthy.is_not(None)
        kinds = (c.pool, c.state, sick, c.settings_version < pools.c.settings_version)
        alive = sa.select(*kinds, MANY).join(pools, pools.c.pool == c.pool).group_by(*kinds)
        for pool, state, is_sick, is_old, many in tx.sql.execute(
            alive.where(c.state != InstanceState.GONE.value, c.pool.in_(names))
        ):
            self.instances[pool][state] += many
            self.outdated[pool] += many if is_old else 0
            self.unhealthy[pool] += many if is_sick else 0
            self.well[pool] += many if state == InstanceState.READY.value and not is_sick else 0
        held = sa.select(c.pool, c.state, sick, MANY).join(leases, leases.c.instance_id == c.instance_id)
        for pool, state, is_sick, many in tx.sql.execute(
            held.where(leases.c.state.in_(_ACTIVE), c.pool.in_(names)).group_by(c.pool, c.state, sick)
        ):
            self.used[pool] += many
            self.used_of_well[pool] += many if state == InstanceState.READY.value and not is_sick else 0
        promised = sa.select(r.pool, r.state, MANY).where(r.pool.in_(names)).group_by(r.pool, r.state)
        self.promised = {(pool, state): many for pool, state, many in tx.sql.execute(promised)}
        waits = sa.select(jobs.c.pool, MANY).where(IS_OPEN, jobs.c.state == "waiting").group_by(jobs.c.pool)
        self.waiting = {row.pool: row.many for row in tx.sql.execute(waits)}


def _pool(tx: Tx, row: Any, census: _Census) -> ListedPool:
    settings = tx.seal.open_json(row.settings)
    capacity = int(settings.get("capacity_per_instance") or 1)
    return ListedPool(
        pool=row.pool,
        plugin=row.plugin,
        owner=row.owner,
        epoch=row.epoch,
        settings_version=row.settings_version,
        capacity_per_instance=capacity,
        max_instances=int(settings.get("max_instances") or 0),
        ask_limit=row.ask_limit,
        retired_at=instant(row.retired_at),
        instances=dict(census.instances[row.pool]),
        outdated=census.outdated[row.pool],
        unhealthy=census.unhealthy[row.pool],
        slots=Slots(
            used=census.used[row.pool],
            free=max(0, census.well[row.pool] * capacity - census.used_of_well[row.pool]),
            asking=census.promised.get((row.pool, "asking"), 0),
            owed=census.promised.get((row.pool, "owed"), 0),
            waiting=census.waiting.get(row.pool, 0),
        ),
    )


def list_instances(
    tx: Tx,
    *,
    limit: int = PAGE,
    after: str = "",
    pool: str | None = None,
    states: Iterable[InstanceState] = (),
    gone: bool = False,
) -> Page[ListedInstance]:
    """Instances, oldest first; those that are gone only when `gone` or `states` asks for them."""
    c = instances.c
    query = sa.select(instances).order_by(c.created_at, c.instance_id).limit(limit + 1)
    wanted = [state.value for state in states]
    if wanted:
        query = query.where(c.state.in_(wanted))
    elif not gone:
        query = query.where(c.state != InstanceState.GONE.value)
    if pool is not None:
        query = query.where(c.pool == pool)
    if after:
        query = query.where(beyond(after, c.created_at, c.instance_id))
    rows = tx.sql.execute(query).all()
    found = _instances(tx, rows)
    return page(found, limit, [cursor(row.created_at, row.instance_id) for row in rows])


def one_instance(tx: Tx, instance_id: str) -> ListedInstance | None:
    """One instance, gone or not; None when there is no such row."""
    rows = tx.sql.execute(sa.select(instances).where(instances.c.instance_id == instance_id)).all()
    return next(iter(_instances(tx, rows)), None)


def _instances(tx: Tx, rows: Sequence[sa.Row[Any]]) -> list[ListedInstance]:
    held: dict[str, list[UsedSlot]] = defaultdict(list)
    query = (
        sa.select(leases, jobs.c.gitlab_job_id)
        .outerjoin(jobs, jobs.c.job_key == leases.c.job_key)
        .where(leases.c.instance_id.in_([row.instance_id for row in rows]), leases.c.state.in_(_ACTIVE))
        .order_by(leases.c.slot)
    )
    for row in tx.sql.execute(query):
        held[row.instance_id].append(
            UsedSlot(
                slot=row.slot,
                lease_id=row.lease_id,
                lease_state=row.state,
                job_key=row.job_key,
                gitlab_job_id=row.gitlab_job_id,
            )
        )
    return [_instance(row, tuple(held[row.instance_id])) for row in rows]


def _instance(row: Any, slots: tuple[UsedSlot, ...]) -> ListedInstance:
    address = json.loads(row.address or "{}")
    return ListedInstance(
        instance_id=row.instance_id,
        pool=row.pool,
        placement=row.placement,
        state=row.state,
        state_at=row.state_at.isoformat(),
        state_by=instant(row.state_by),
        created_at=row.created_at.isoformat(),
        ready_at=instant(row.ready_at),
        idle_since=instant(row.idle_since),
        gone_at=instant(row.gone_at),
        machine_id=row.machine_id,
        request_id=row.request_id,
        observed=row.observed,
        observed_at=instant(row.observed_at),
        address_internal=address.get("internal"),
        address_external=address.get("external"),
        use_count=row.use_count,
        settings_version=row.settings_version,
        unhealthy=row.unhealthy,
        no_room=row.no_room,
        unreachable_since=instant(row.unreachable_since),
        drain_reason=row.drain_reason,
        end_reason=row.end_reason,
        slots=slots,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedManager:
    """A manager; `alive` says whether its claims hold by the store's clock."""

    manager_id: str
    version: str
    host: str
    api: str | None
    state: str
    alive: bool
    started_at: str
    alive_until: str
    open_jobs: int
    pools: tuple[str, ...]


def list_managers(tx: Tx) -> tuple[ListedManager, ...]:
    """Every manager that is remembered, by its id."""
    held = sa.select(jobs.c.owner, MANY).where(IS_OPEN).group_by(jobs.c.owner)
    open_jobs = {row.owner: row.many for row in tx.sql.execute(held)}
    owned: dict[str, list[str]] = defaultdict(list)
    for pool, owner in tx.sql.execute(sa.select(pools.c.pool, pools.c.owner).order_by(pools.c.pool)):
        owned[owner].append(pool)
    return tuple(
        ListedManager(
            manager_id=row.manager_id,
            version=row.version,
            host=row.host,
            api=row.api,
            state=row.state,
            alive=row.alive_until > tx.now,
            started_at=row.started_at.isoformat(),
            alive_until=row.alive_until.isoformat(),
            open_jobs=open_jobs.get(row.manager_id, 0),
            pools=tuple(owned[row.manager_id]),
        )
        for row in tx.sql.execute(sa.select(managers).order_by(managers.c.manager_id))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRunner:
    """A runner, without its token; `jobs` counts its open jobs by state."""

    runner_key: str
    name: str
    url: str
    pool: str
    retired_at: str | None
    token_obtained_at: str | None
    token_expires_at: str | None
    jobs: Mapping[str, int]


def list_runners(tx: Tx) -> tuple[ListedRunner, ...]:
    """Every runner, retired ones included, by its key."""
    kinds = (jobs.c.runner_key, jobs.c.state)
    held: dict[str, dict[str, int]] = defaultdict(dict)
    for key, state, many in tx.sql.execute(sa.select(*kinds, MANY).where(IS_OPEN).group_by(*kinds)):
        held[key][state] = many
    return tuple(
        ListedRunner(
            runner_key=row.runner_key,
            name=row.name,
            url=row.url,
            pool=row.pool,
            retired_at=instant(row.retired_at),
            token_obtained_at=instant(row.token_obtained_at),
            token_expires_at=instant(row.token_expires_at),
            jobs=held[row.runner_key],
        )
        for row in tx.sql.execute(sa.select(runners).order_by(runners.c.runner_key))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCoolDown:
    """A scope that failed; `running` while it is not tried."""

    scope: str
    until: str
    running: bool
    failures: int
    reason: str


def list_cool_downs(tx: Tx) -> tuple[ListedCoolDown, ...]:
    """Every scope whose failure is remembered."""
    return tuple(
        ListedCoolDown(
            scope=row.scope,
            until=row.until.isoformat(),
            running=row.until > tx.now,
            failures=row.failures,
            reason=row.reason,
        )
        for row in tx.sql.execute(sa.select(cool_downs).order_by(cool_downs.c.scope))
    )
