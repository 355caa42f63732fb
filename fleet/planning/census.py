"""Sorts the instances of a pool by what can still be expected of them.

Every instance that is not gone is in exactly one group:

- `fit`: ready, and may get jobs as long as it has a free slot;
- `outdated`: as fit, but made for older settings: it serves what was promised and nothing more;
- `unfit`: ready, but may get no job (unhealthy, over age, used up);
- `coming`, `coming_outdated`: on the way to ready;
- `failed`: on the way to ready, stopping or stopped, but unhealthy or past its deadline: it will not come;
- `stopped`: in the stopped tier, or on the way there;
- `leaving`: draining or deleting.

Only fit, outdated and coming ones have slots to give; `free` names them, lowest first, cut to the uses that are left.
In a round that removes nothing because the clock jumped, no instance is called late or old either: a replacement for
it would be as wrong as its removal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fleet.model.ids import InstanceId
from fleet.model.lifecycle import PENDING_INSTANCE, InstanceState
from fleet.model.plan import Because
from fleet.model.policy import PoolLimits
from fleet.model.snapshot import InstanceView, PoolSnapshot
from fleet.planning import wording


class Group(StrEnum):
    FIT = "fit"
    OUTDATED = "outdated"
    UNFIT = "unfit"
    COMING = "coming"
    COMING_OUTDATED = "coming_outdated"
    FAILED = "failed"
    STOPPED = "stopped"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """The groups, each in the order of instance ids.

    Attributes:
        faults: why each unfit or failed instance is so.
        free: the slot numbers that each instance of a giving group may still lease.
        alive: instances in every state but gone.
        leased: slots with a lease.
    """

    groups: Mapping[Group, tuple[InstanceView, ...]]
    faults: Mapping[InstanceId, tuple[Because, str]]
    free: Mapping[InstanceId, tuple[int, ...]]
    alive: int
    leased: int

    def members(self, *groups: Group) -> tuple[InstanceView, ...]:
        """The instances of these groups, one group after the other."""
        return tuple(instance for group in groups for instance in self.groups.get(group, ()))

    def slots(self, instances: Iterable[InstanceView]) -> int:
        """How many free slots these instances have."""
        return sum(len(self.free[instance.instance_id]) for instance in instances)


def take_census(snapshot: PoolSnapshot) -> Census:
    """Put every instance that is not gone into its group."""
    limits = snapshot.limits
    groups: dict[Group, list[InstanceView]] = {}
    faults: dict[InstanceId, tuple[Because, str]] = {}
    free: dict[InstanceId, tuple[int, ...]] = {}
    alive = leased = 0
    for instance in sorted(snapshot.instances, key=lambda i: i.instance_id):
        if instance.state is InstanceState.GONE:
            continue
        alive += 1
        leased += len(instance.used_slots)
        fault = _fault(instance, limits, None if snapshot.frozen_removals else snapshot.now)
        if fault is not None:
            faults[instance.instance_id] = fault
        group = _group(instance, limits, failing=fault is not None)
        groups.setdefault(group, []).append(instance)
        free[instance.instance_id] = free_slots(instance, limits)
    return Census(
        groups={group: tuple(members) for group, members in groups.items()},
        faults=faults,
        free=free,
        alive=alive,
        leased=leased,
    )


def free_slots(instance: InstanceView, limits: PoolLimits) -> tuple[int, ...]:
    """The slot numbers without a lease, lowest first, at most as many as uses are left; none on a full machine."""
    if instance.no_room is not None:
        return ()
    used = instance.used_slots
    slots = [number for number in range(limits.capacity_per_instance) if number not in used]
    if limits.max_use_count:
        del slots[max(0, limits.max_use_count - instance.use_count) :]
    return tuple(slots)


def _group(instance: InstanceView, limits: PoolLimits, *, failing: bool) -> Group:
    state = instance.state
    if state is InstanceState.DRAINING or state is InstanceState.DELETING:
        return Group.LEAVING
    current = instance.settings_version >= limits.settings_version
    if state is InstanceState.READY:
        if failing:
            return Group.UNFIT
        return Group.FIT if current else Group.OUTDATED
    if failing:
        return Group.FAILED
    if state in PENDING_INSTANCE:
        return Group.COMING if current else Group.COMING_OUTDATED
    return Group.STOPPED


def _fault(instance: InstanceView, limits: PoolLimits, now: datetime | None) -> tuple[Because, str] | None:
    """Why an instance may get no job; without a trustworthy `now`, time is no reason."""
    if instance.unhealthy is not None:
        return Because.UNHEALTHY, f"it is unhealthy: {instance.unhealthy}"
    if instance.state is not InstanceState.READY:
        return None if now is None else _lateness(instance, now)
    if limits.max_age is not None and now is not None and now - instance.created_at >= limits.max_age:
        age = wording.span(now - instance.created_at)
        return Because.OVER_AGE, f"it is {age} old (max_age {wording.span(limits.max_age)})"
    if limits.max_use_count and instance.use_count >= limits.max_use_count:
        return Because.USED_UP, used_up(instance.use_count, limits)
    return None


def used_up(use_count: int, limits: PoolLimits) -> str:
    """The sentence for an instance that has run all jobs it may."""
    return f"it has been given {wording.counted(use_count, 'job')} (max_use_count {limits.max_use_count})"


def _lateness(instance: InstanceView, now: datetime) -> tuple[Because, str] | None:
    if instance.state_by is None or now < instance.state_by:
        return None
    took = wording.span(now - instance.state_at)
    return (
        Because.OVERDUE,
        f"it has been {instance.state} for {took}, its deadline was {wording.instant(instance.state_by)}",
    )
