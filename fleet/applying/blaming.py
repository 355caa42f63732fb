"""Blames placements for machines that did not come in time, so that the next one is made elsewhere.

A provider that says no is blamed where its answer is read (`provisioning.creating`), a machine that fails its ready
command where that is run (`leasing.readiness`). What passes its deadline says nothing: planning notices it.
"""

from __future__ import annotations

from fleet.model.plan import Because, Plan
from fleet.model.snapshot import PoolSnapshot
from fleet.sdk import Scope
from fleet.store import snapshots
from fleet.store.book import Pool
from fleet.store.database import Tx


def blame_placements(tx: Tx, pool: Pool, snapshot: PoolSnapshot, made: Plan) -> int:
    """Cool down the placements of machines that this plan gives up as overdue; returns how many there were."""
    if pool.limits.fixed_inventory:
        return 0
    placements = {each.instance_id: each.placement for each in snapshot.instances}
    late = {
        placements[each.instance_id]: each.reason
        for each in made.deletes
        if each.slug is Because.OVERDUE and each.instance_id in placements
    }
    for placement, reason in late.items():
        snapshots.cool(tx, pool.scope_key(placement, Scope.PLACEMENT), reason)
    return len(late)
