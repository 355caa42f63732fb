"""Ends what an earlier lease of ours left on a machine, before the machine gets a new slot.

A given machine that was lost cannot be fenced: when it comes back, the script of the lost job may still be running. Its
agent says which leases it has. Those that our rows know and that hold no slot any more are aborted and cleaned; what
our rows do not know belongs to another store or is older than they remember, and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from fleet.machine.channel import AgentChannel
from fleet.machine.errors import AgentError
from fleet.store import leases
from fleet.store.database import Store

log = structlog.get_logger(__name__)
ABORT_S = 30.0
CLEAN_S = 330.0
DONE = ("unknown_lease", "cleaned")


def clear_leftovers(store: Store, channel: AgentChannel, instance_id: str) -> int:
    """Abort and clean every lease on the machine that is over; returns how many there were.

    Raises:
        MachineError: the machine could not be brought to it.
    """
    told: Mapping[str, Mapping[str, Any]] = {str(each["lease"]): each for each in channel.hello.get("leases") or ()}
    if not told:
        return 0
    over = store.read(lambda tx: leases.ended_among(tx, told))
    for lease_id in over:
        epoch = int(told[lease_id].get("epoch") or 0)
        log.warning("leftover_found", instance=instance_id, lease=lease_id, state=told[lease_id].get("state"))
        _tell(channel, "abort", ABORT_S, lease_id, epoch)
        _tell(channel, "clean", CLEAN_S, lease_id, epoch)
        log.info("leftover_cleaned", instance=instance_id, lease=lease_id)
    return len(over)


def _tell(channel: AgentChannel, kind: str, timeout_s: float, lease_id: str, epoch: int) -> None:
    reason = "its machine was lost and came back"
    try:
        channel.request(kind, timeout_s, lease=lease_id, epoch=epoch, reason=reason)
    except AgentError as exc:
        if exc.slug_of_agent not in DONE:
            raise
