"""Which machines have vanished, as complete listings show it.

A machine is *absent* when

- a listing shows it as gone or failed; or
- two complete listings in a row do not show it, each begun after it must have been visible (`known_at` plus the
  provider's visibility lag).

A listing that could not be completed is no listing. Absence means a loss for an instance that should be there, and the
awaited end for one in `deleting`: which of the two, and what becomes of its leases, is for the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.model.ids import InstanceId
from fleet.planning import wording
from fleet.sdk.provider import Machine, MachineState

LISTINGS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An instance whose machine has a name.

    Attributes:
        known_at: when the provider named the machine; it may take the visibility lag to be listed.
        missed: complete listings in a row that did not show it.
    """

    instance_id: InstanceId
    machine_id: str
    known_at: datetime
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """An instance whose machine is no more."""

    instance_id: InstanceId
    slug: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """What one listing says of known instances.

    Attributes:
        seen: those it shows as there, with what it says.
        missed: those it does not show, with the new count; to be remembered.
        absent: those that are no more.
    """

    seen: Mapping[InstanceId, Machine]
    missed: Mapping[InstanceId, int]
    absent: tuple[Absent, ...]


def look(known: Iterable[Known], listing: Mapping[str, Machine], *, begun_at: datetime, lag: timedelta) -> Sightings:
    """Compare what we know with one complete listing, begun at `begun_at`, by machine id."""
    seen: dict[InstanceId, Machine] = {}
    missed: dict[InstanceId, int] = {}
    absent: list[Absent] = []
    for each in sorted(known, key=lambda k: k.instance_id):
        machine = listing.get(each.machine_id)
        if machine is None:
            if begun_at >= each.known_at + lag:
                missed[each.instance_id] = each.missed + 1
        elif machine.state is MachineState.GONE or machine.state is MachineState.FAILED:
            said = f": {machine.reason}" if machine.reason else ""
            reason = f"the provider lists machine {each.machine_id} as {machine.state}{said}"
            absent.append(Absent(instance_id=each.instance_id, slug=f"machine_{machine.state}", reason=reason))
        else:
            seen[each.instance_id] = machine
        if missed.get(each.instance_id, 0) >= LISTINGS:
            reason = (
                f"machine {each.machine_id} is missing from {wording.counted(LISTINGS, 'complete listing')} in a row"
            )
            absent.append(Absent(instance_id=each.instance_id, slug="machine_missing", reason=reason))
    return Sightings(seen=seen, missed=missed, absent=tuple(absent))
