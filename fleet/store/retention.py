"""Forgetting what is over, so that no table grows without limit (law 10).

What may go, each after its time and at most `limit` rows of a kind in one call:

* journal lines, oldest first, always the beginning of what is left; the newest line stays, for its number is how a
  restored database is noticed (`fleet.store.restore`);
* jobs that have ended, with their leases, once no machine is still being cleaned for them;
* instances that are gone, once no lease speaks of them and their request is answered;
* answered requests that no instance speaks of;
* retired runners and pools with nothing left of theirs; dead managers that own nothing; cool-downs long past.

Nothing that is open is ever touched: an open job, an active lease, a living instance, a request that the provider has
not answered, a pool or runner that the configuration names. Files (spools) are not kept here and not removed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

import sqlalchemy as sa

from fleet.model.lifecycle import ACTIVE_LEASE, InstanceState, JobState
from fleet.store.database import Tx
from fleet.store.tables import (
    cool_downs,
    create_requests,
    instances,
    jobs,
    journal,
    leases,
    managers,
    pools,
    reservations,
    runners,
)

_ACTIVE = [state.value for state in ACTIVE_LEASE]
_ENDED = [JobState.FINISHED.value, JobState.ABANDONED.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows of each kind were deleted."""

    journal: int = 0
    jobs: int = 0
    leases: int = 0
    instances: int = 0
    requests: int = 0
    runners: int = 0
    pools: int = 0
    managers: int = 0
    cool_downs: int = 0

    @property
    def total(self) -> int:
        """All of them; 0 says that nothing is left to forget."""
        return sum(astuple(self))


def prune(
    tx: Tx, *, journal_before: datetime, finished_before: datetime, gone_before: datetime, limit: int = 500
) -> Pruned:
    """Forget what ended before these instants; call again while `total` is not 0.

    `journal_before` is for journal lines, `finished_before` for jobs and their leases, `gone_before` for the rest.
    `limit` is the most rows of a kind, so that no transaction holds up the others for long.
    """
    lines = _journal(tx, journal_before, limit)
    ended, ended_leases = _jobs(tx, finished_before, limit)
    return Pruned(
        journal=lines,
        jobs=ended,
        leases=ended_leases,
        instances=_instances(tx, gone_before, limit),
        requests=_requests(tx, gone_before, limit),
        runners=_runners(tx, gone_before),
        pools=_pools(tx, gone_before),
        managers=_managers(tx, gone_before),
        cool_downs=_deleted(tx, sa.delete(cool_downs).where(cool_downs.c.until < gone_before)),
    )


def _deleted(tx: Tx, statement: sa.Delete) -> int:
    return int(tx.sql.execute(statement).rowcount)


def _without(column: sa.ColumnElement[str], *others: sa.ColumnElement[str]) -> list[sa.ColumnElement[bool]]:
    """Nothing in these columns of other tables speaks of the row."""
    return [~sa.exists().where(other == column) for other in others]


def _journal(tx: Tx, before: datetime, limit: int) -> int:
    newest = tx.sql.execute(sa.select(sa.func.max(journal.c.seq))).scalar()
    oldest = tx.sql.execute(sa.select(journal.c.seq, journal.c.at).order_by(journal.c.seq).limit(limit))
    last = None
    for row in oldest:
        # a beginning only: a gap in the numbers would look like another history of this database
        if row.at >= before or row.seq == newest:
            break
        last = row.seq
    return 0 if last is None else _deleted(tx, sa.delete(journal).where(journal.c.seq <= last))


def _jobs(tx: Tx, before: datetime, limit: int) -> tuple[int, int]:
    held = sa.exists().where(leases.c.job_key == jobs.c.job_key, leases.c.state.in_(_ACTIVE))
    keys: Sequence[str] = (
        tx.sql.execute(
            sa.select(jobs.c.job_key)
            .where(
                jobs.c.finished_at < before,
                jobs.c.state.in_(_ENDED),
                ~held,
                *_without(jobs.c.job_key, reservations.c.job_key),
            )
            .order_by(jobs.c.finished_at)
            .limit(limit)
        )
        .scalars()
        .all()
    )
    if not keys:
        return 0, 0
    ended = _deleted(tx, sa.delete(leases).where(leases.c.job_key.in_(keys), leases.c.state.not_in(_ACTIVE)))
    return _deleted(tx, sa.delete(jobs).where(jobs.c.job_key.in_(keys), jobs.c.state.in_(_ENDED))), ended


def _instances(tx: Tx, before: datetime, limit: int) -> int:
    awaited = sa.exists().where(
        create_requests.c.request_id == instances.c.request_id, create_requests.c.state == "open"
    )
    ids = (
        sa.select(instances.c.instance_id)
        .where(
            instances.c.state == InstanceState.GONE.value,
            instances.c.state_at < before,
            ~awaited,
            *_without(instances.c.instance_id, leases.c.instance_id),
        )
        .limit(limit)
    )
    return _deleted(tx, sa.delete(instances).where(instances.c.instance_id.in_(ids.scalar_subquery())))


def _requests(tx: Tx, before: datetime, limit: int) -> int:
    ids = (
        sa.select(create_requests.c.request_id)
        .where(
            create_requests.c.state != "open",
            create_requests.c.created_at < before,
            *_without(create_requests.c.request_id, instances.c.request_id),
        )
        .limit(limit)
    )
    return _deleted(tx, sa.delete(create_requests).where(create_requests.c.request_id.in_(ids.scalar_subquery())))


# The few rows below are deleted by their own columns, not by a list of names read before: a configuration that names
# one of them again at this moment is seen, and the row stays.


def _runners(tx: Tx, before: datetime) -> int:
    free = _without(runners.c.runner_key, jobs.c.runner_key, reservations.c.runner_key, leases.c.runner_key)
    return _deleted(tx, sa.delete(runners).where(runners.c.retired_at < before, *free))


def _pools(tx: Tx, before: datetime) -> int:
    users = (instances.c.pool, create_requests.c.pool, jobs.c.pool, reservations.c.pool, runners.c.pool)
    return _deleted(tx, sa.delete(pools).where(pools.c.retired_at < before, *_without(pools.c.pool, *users)))


def _managers(tx: Tx, before: datetime) -> int:
    owned = (jobs.c.owner, pools.c.owner, runners.c.owner, reservations.c.manager_id)
    return _deleted(
        tx, sa.delete(managers).where(managers.c.alive_until < before, *_without(managers.c.manager_id, *owned))
    )
