"""The store's clock was set: everything that waits for an instant, or counts from one, moves along.

On PostgreSQL the server's clock is the clock of all managers. When it is set by an hour, no deadline has passed, no
machine has been idle for an hour more, and nobody's claims have run out. On SQLite the manager's own time never steps,
and this is not needed. Each manager notices a step by itself; the first one shifts, and the others find its line in the
journal. What is over (ended jobs, machines that are gone, the journal) stays as it was written.
"""

from __future__ import annotations

from datetime import timedelta

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


def shift(tx: Tx, by: timedelta) -> bool:
    """Move every instant that still counts for something; False when another manager has done so for this step."""
    tx.sql.execute(sa.select(stores.c.store_id).with_for_update()).all()
    last = tx.sql.execute(
        sa.select(journal.c.at).where(journal.c.stimulus == STEPPED).order_by(journal.c.seq.desc()).limit(1)
    ).scalar()
    if last is not None and abs(tx.now - last) < SAME_STEP:
        return False
    for table, living in _LIVING.items():
        moved = {each.name: _later(each, by) for each in table.c if isinstance(each.type, Instant)}
        tx.sql.execute(sa.update(table).where(living).values(moved))
    seconds = round(by.total_seconds())
    tx.journal("store", "clock", STEPPED, f"the database's clock was set by {seconds:+d} s: deadlines move along")
    return True


def _later(column: sa.ColumnElement[object], by: timedelta) -> sa.ColumnElement[float]:
    return sa.type_coerce(column, sa.Double) + by.total_seconds()
