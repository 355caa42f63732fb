"""The store's clock was set: everything that waits for an instant, or counts from one, moves along.

On PostgreSQL the server's clock is the clock of all managers. When it is set by an hour, no deadline has passed, no
machine has been idle for an hour more, and nobody's claims have run out. On SQLite the manager's own time never steps,
and this is not needed. Each manager notices a step by itself; the first one shifts, and the others find its line in the
journal. What is over (ended jobs, machines that are gone, the journal) stays as it was written.

Between the step and its being noticed the managers go on writing, by the new clock already. What was written in that
time is told by its instant and left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from fleet.model.lifecycle import InstanceState, JobState
from fleet.store.database import Tx
from fleet.store.tables import (
    Instant,
    cool_downs,
    create_requests,
    instances,
    jobs,
    journal,
    leases,
    managers,
    pools,
    stores,
)

STEPPED = "clock_stepped"
SAME_STEP = timedelta(seconds=60)
_LIVING = {
    managers: sa.true(),
    pools: sa.true(),
    cool_downs: sa.true(),
    create_requests: create_requests.c.state == "open",
    instances: instances.c.state != InstanceState.GONE.value,
    leases: leases.c.ended_at.is_(None),
    jobs: jobs.c.state.not_in([JobState.FINISHED.value, JobState.ABANDONED.value]),
}
# deadlines -> the instant at which they were set
_SET_AT = {instances.c.state_by: instances.c.state_at, jobs.c.deadline_at: jobs.c.received_at}
SLACK = timedelta(seconds=1)


def shift(tx: Tx, by: timedelta, *, within: timedelta = timedelta(0)) -> bool:
    """Move every instant that still counts for something; False when another manager has done so for this step.

    `by` is how far the clock was set, forward or back; the step is not longer ago than `within`.
    """
    tx.sql.execute(sa.select(stores.c.store_id).with_for_update()).all()
    last = tx.sql.execute(
        sa.select(journal.c.at).where(journal.c.stimulus == STEPPED).order_by(journal.c.seq.desc()).limit(1)
    ).scalar()
    if last is not None and abs(tx.now - last) < SAME_STEP:
        return False
    moves = _Moves(by=by.total_seconds(), now=tx.now.timestamp(), since=(tx.now - within - SLACK).timestamp())
    for table, living in _LIVING.items():
        moved = {each.name: moves.of(each) for each in table.c if isinstance(each.type, Instant)}
        tx.sql.execute(sa.update(table).where(living).values(moved))
    seconds = round(by.total_seconds())
    tx.journal("store", "clock", STEPPED, f"the database's clock was set by {seconds:+d} s: deadlines move along")
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moves:
    """Where each instant goes; all in seconds."""

    by: float
    now: float
    since: float

    def of(self, column: sa.Column[Any]) -> Any:
        if column is instances.c.due_at:
            return None  # try at once: that is always right
        value = sa.type_coerce(column, sa.Double)
        later = value + self.by
        if column is managers.c.alive_until:  # renewed all the time: by whichever clock it is nearer to now
            return sa.case((sa.func.abs(value - self.now) < sa.func.abs(later - self.now), value), else_=later)
        set_at = sa.type_coerce(_SET_AT.get(column, column), sa.Double)
        return sa.case((set_at.between(self.since, self.now), value), else_=later)
