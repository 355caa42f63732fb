"""Sees to leases whose machine cannot be cleaned: they must not hold their slots for ever.

A machine that was made counts as lost when it is not clean after `cleaning_timeout`: it is deleted, which cleans it for
certain. A given machine cannot be deleted: it is blamed, so that it gets no further job, and cleaning goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import structlog

from fleet.execution.desk import Desk, UnknownMachine
from fleet.model.job import Lease
from fleet.store import instances
from fleet.store.database import Tx
from fleet.store.losing import lose_machine

log = structlog.get_logger(__name__)


def give_up_uncleaned(desk: Desk, cleaning: Iterable[Lease], now: datetime) -> int:
    """Let go of the machines of these leases that have been cleaning for too long; returns how many leases it were."""
    return sum(_give_up(desk, lease, now) for lease in cleaning)


def _give_up(desk: Desk, lease: Lease, now: datetime) -> bool:
    soonest = min((pool.settings.fleet.cleaning_timeout for pool in desk.book.pools.values()), default=None)
    if lease.state_at is None or soonest is None or now - lease.state_at <= soonest:
        return False  # as nearly always: no row need be read
    try:
        row, pool = desk.instance(lease.instance)
    except UnknownMachine:
        return False
    limit = pool.settings.fleet.cleaning_timeout
    if now - lease.state_at <= limit:
        return False
    reason = f"it could not be cleaned within {limit.total_seconds():g} s after a job"
    if pool.limits.fixed_inventory:
        if row.unhealthy is None:
            desk.store.write(lambda tx: instances.blame(tx, lease.instance, reason))
        return False
    if desk.store.write(lambda tx: _lose(tx, lease, reason)):
        log.error("machine_lost", instance=lease.instance, reason=reason)
        desk.channels.close(lease.instance)
        desk.hint("plan", "reap")
    return True


def _lose(tx: Tx, lease: Lease, reason: str) -> bool:
    return lose_machine(tx, lease.instance, stimulus="not_cleaned", reason=reason)
