"""The job slots of a pool by what may be done with them, in taskscaler's words."""

from __future__ import annotations

from fleet.model.lifecycle import PENDING_INSTANCE
from fleet.runtime.rows import Census

PENDING = {state.value for state in PENDING_INSTANCE}


def slots_of(census: Census, pool: str, capacity: int) -> dict[str, int]:
    """State -> slots.

    idle        free, on a machine that may get a job
    pending     on a machine that is on its way
    acquired    held by a job
    reserved    promised: to a poll, or to a job without a machine
    unhealthy   free, on a machine that may get no job because something is wrong with it
    unavailable free, on a machine that drains or is stopped
    """
    slots = dict.fromkeys(("idle", "pending", "acquired", "reserved", "unavailable", "unhealthy"), 0)
    for (name, state, unhealthy), count in census.instances.items():
        kind = _kind(state, unhealthy)
        if name == pool and kind is not None:
            slots[kind] += count * capacity
    for (name, state, unhealthy), count in census.leases.items():
        if name != pool:
            continue
        slots["acquired"] += count
        kind = _kind(state, unhealthy)
        if kind is not None:
            slots[kind] = max(0, slots[kind] - count)
    slots["reserved"] = sum(count for (name, _), count in census.reservations.items() if name == pool)
    return slots


def _kind(state: str, unhealthy: bool) -> str | None:
    """What a free slot of such a machine is; None when it offers none."""
    if state in PENDING:
        return "pending"
    if state == "ready":
        return "unhealthy" if unhealthy else "idle"
    return "unavailable" if state in {"draining", "stopping", "stopped"} else None
