"""Frees a slot: the agent forgets the job, and only then may another one have its place (law 7)."""

from __future__ import annotations

import structlog

from fleet.execution import ending
from fleet.execution.desk import Desk, UnknownMachine
from fleet.execution.follows import Follows
from fleet.machine.errors import AgentError, MachineError
from fleet.model.job import Lease
from fleet.model.lifecycle import LeaseState
from fleet.sdk import FleetError
from fleet.store import instances, leases

log = structlog.get_logger(__name__)
CLEAN_S = 300.0


def clean(desk: Desk, follows: Follows, lease: Lease) -> None:
    """Clean up after a job whose end is known; its log must be in the spool before the agent may forget it."""
    held = desk.store.read(lambda tx: leases.lease(tx, lease.lease_id))
    if held is None or held.state is not LeaseState.CLEANING:
        return  # it was cleaned while this waited in the lane
    found = ending.load(desk, lease.job)
    if found is not None and desk.holds_logs:
        return  # were this host lost now, the machine alone would have what GitLab lacks
    if found is not None and ending.complete_spool(desk, found) is None:
        return  # the log is still being fetched
    clean_now(desk, follows, lease, lease.epoch)


def clean_now(desk: Desk, follows: Follows, lease: Lease, epoch: int) -> None:
    """Tell the agent that the spool is durable and that it may forget; then the slot is free."""
    try:
        durable = desk.spool.sync(lease.job)
        channel = desk.channel(lease.instance)
        channel.request("ack", 60.0, lease=lease.lease_id, epoch=epoch, offset=durable)
        channel.note_pulse(channel.request("clean", CLEAN_S, lease=lease.lease_id, epoch=epoch))
    except AgentError as exc:
        if exc.slug_of_agent == "stale_epoch":
            return  # another manager sees to it
        if exc.slug_of_agent not in ("unknown_lease", "cleaned"):
            _not_cleaned(desk, lease, exc)
            return
    except (MachineError, UnknownMachine, OSError) as exc:
        log.warning("clean_postponed", instance=lease.instance, lease=lease.lease_id, error=str(exc))
        return
    follows.drop(lease.lease_id)
    desk.store.write(
        lambda tx: leases.move_lease(
            tx, lease.lease_id, LeaseState.RELEASED, stimulus="cleaned", reason="the machine is clean"
        )
    )
    desk.hint("plan", "tidy")


def _not_cleaned(desk: Desk, lease: Lease, error: FleetError) -> None:
    """What cannot be cleaned gets no other job; planning drains it, and its lease ends with its machine."""
    log.error("clean_failed", instance=lease.instance, lease=lease.lease_id, error=str(error))
    reason = f"it could not be cleaned after a job: {error}"
    desk.store.write(lambda tx: instances.blame(tx, lease.instance, reason))
