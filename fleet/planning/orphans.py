"""Which machines nobody knows any more: law 6, no leaks.

An *orphan* is a listed machine that

- carries our `store_id`; and
- belongs to no instance that is alive, and to no request that is still open (it may yet be adopted by that); and
- was found so in two complete listings, the second begun at least the provider's visibility lag after the first.

The rows that say what is known must be read *after* the listing has ended: intent is committed before effect, so a
machine in the listing then has its request in the rows. Machines of other stores are reported, never touched. While
sweeping is off (a database that may have been restored), our own orphans are reported only, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.planning import wording
from fleet.sdk.provider import TAG_POOL, TAG_REQUEST, TAG_STORE, Machine, MachineState

LISTINGS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A machine that nobody knew in the listings so far."""

    machine_id: str
    since: datetime
    listings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A machine to delete, or to tell a person about."""

    machine_id: str
    pool: str
    request: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What one listing leads to.

    Attributes:
        delete: our orphans.
        report: machines that a person should know of: other stores', and our orphans while sweeping is off.
        suspects: to be handed in with the next listing.
    """

    delete: tuple[Orphan, ...]
    report: tuple[Orphan, ...]
    suspects: Mapping[str, Suspect]


def sweep(
    listing: Iterable[Machine],
    *,
    store_id: str,
    begun_at: datetime,
    lag: timedelta,
    known_machines: AbstractSet[str],
    open_requests: AbstractSet[str],
    suspects: Mapping[str, Suspect],
    sweeping: bool,
) -> Sweep:
    """Judge one complete listing, begun at `begun_at`, given the suspects of the one before."""
    delete: list[Orphan] = []
    report: list[Orphan] = []
    still: dict[str, Suspect] = {}
    for machine in sorted(listing, key=lambda m: m.machine_id):
        if machine.state is MachineState.GONE or machine.state is MachineState.DELETING:
            continue
        owner = machine.tags.get(TAG_STORE)
        if owner != store_id:
            report.append(_orphan(machine, f"it belongs to another store ({owner})"))
            continue
        if machine.machine_id in known_machines or machine.tags.get(TAG_REQUEST) in open_requests:
            continue
        suspect = _suspect(machine.machine_id, suspects.get(machine.machine_id), begun_at)
        still[machine.machine_id] = suspect
        if suspect.listings >= LISTINGS and begun_at - suspect.since >= lag:
            reason = f"it carries our tags and no row knows it, since {wording.instant(suspect.since)}"
            (delete if sweeping else report).append(_orphan(machine, reason))
    return Sweep(delete=tuple(delete), report=tuple(report), suspects=still)


def _suspect(machine_id: str, before: Suspect | None, begun_at: datetime) -> Suspect:
    if before is None:
        return Suspect(machine_id=machine_id, since=begun_at, listings=1)
    again = 0 if begun_at <= before.since else 1  # one listing judged twice is one listing
    return Suspect(machine_id=machine_id, since=before.since, listings=before.listings + again)


def _orphan(machine: Machine, reason: str) -> Orphan:
    return Orphan(
        machine_id=machine.machine_id,
        pool=machine.tags.get(TAG_POOL, ""),
        request=machine.tags.get(TAG_REQUEST, ""),
        reason=reason,
    )
