"""How many machines to make, and where.

What is short (waiting jobs without even a coming slot, and what the idle target misses) is turned into machines. Three
bounds cut that number, in this order: `max_instances` counting every state but gone, the throttle's tokens, and the
placements. The first placement that is not cooling down and has room gets all it can hold, the next one the rest.
What could not be made is a `Hold`: the reason that waiting jobs are given.

`open_room` is what placements and `max_instances` would still allow, whatever the throttle says: a job that comes now
would get a machine, if a little later; so jobs may be asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime

from fleet.model.lifecycle import InstanceState
from fleet.model.plan import Because, Create
from fleet.model.policy import CoolDown, Placement, PoolLimits
from fleet.model.snapshot import PoolSnapshot
from fleet.planning import throttle, wording
from fleet.planning.census import Census, Group

BOUNDLESS = 1_000_000  # instances; stands for "no limit" where a number must be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why no more machines are made just now, and until when if time alone ends it."""

    slug: Because
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What is to be made.

    Attributes:
        hold: why less is made than is short; None when all is.
        open_room: machines that could be made now, before `creates`.
        next_at: when a cool-down that matters here ends.
    """

    creates: tuple[Create, ...] = ()
    hold: Hold | None = None
    open_room: int = 0
    next_at: datetime | None = None

    @property
    def count(self) -> int:
        """Machines to be made."""
        return sum(create.count for create in self.creates)

    @property
    def is_crowded(self) -> bool:
        """Whether the pool lacks room: only a machine that goes makes way for another."""
        return self.hold is not None and self.hold.slug in {Because.AT_MAX_INSTANCES, Because.PLACEMENTS_FULL}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """A placement with the machines it may still take and the cool-down that stops it."""

    placement: Placement
    room: int
    cool_down: CoolDown | None


def slots_per_machine(limits: PoolLimits) -> int:
    """Slots that one new machine brings."""
    capacity = limits.capacity_per_instance
    return min(capacity, limits.max_use_count) if limits.max_use_count else capacity


def machines_for(slots: int, limits: PoolLimits) -> int:
    """Machines that bring this many slots."""
    return math.ceil(slots / slots_per_machine(limits))


def most_instances(limits: PoolLimits) -> int:
    """The most machines the pool can have: its own limit, and that of its placements together."""
    own = limits.max_instances or BOUNDLESS
    places = sum(placement.max_instances or BOUNDLESS for placement in limits.placements)
    return min(own, places)


def grow(snapshot: PoolSnapshot, census: Census, *, jobs: int, idle: int) -> Growth:
    """Machines for `jobs` waiting jobs and `idle` missing free slots."""
    limits = snapshot.limits
    if limits.fixed_inventory:
        return Growth(hold=_fixed_hold(census))
    sites = _sites(snapshot)
    room = max(0, (limits.max_instances or BOUNDLESS) - census.alive)
    open_room = min(room, sum(site.room for site in sites if site.cool_down is None))
    wanted, hold = machines_for(jobs + idle, limits), None
    if wanted > room:
        wanted, hold = room, _full_hold(limits, census)
    paid = wanted if snapshot.tokens is None else min(wanted, throttle.whole(snapshot.tokens))
    if snapshot.tokens is not None and paid < wanted:
        wanted, hold = paid, _throttled_hold(limits, snapshot.tokens, snapshot.now)
    growth = Growth(
        creates=_place(sites, wanted, jobs=jobs, idle=idle),
        hold=hold,
        open_room=open_room,
        next_at=min((site.cool_down.until for site in sites if site.cool_down is not None), default=None),
    )
    return growth if growth.count == wanted else replace(growth, hold=_site_hold(sites))


def _sites(snapshot: PoolSnapshot) -> tuple[_Site, ...]:
    running = {cool.scope: cool for cool in snapshot.cool_downs if cool.until > snapshot.now}
    here = Counter(i.placement for i in snapshot.instances if i.state is not InstanceState.GONE)
    return tuple(
        _Site(
            placement=placement,
            room=max(0, (placement.max_instances or BOUNDLESS) - here[placement.name]),
            cool_down=max(
                (running[scope] for scope in placement.scopes if scope in running),
                key=lambda cool: (cool.until, cool.scope),
                default=None,
            ),
        )
        for placement in snapshot.limits.placements
    )


def _place(sites: tuple[_Site, ...], wanted: int, *, jobs: int, idle: int) -> tuple[Create, ...]:
    slug = Because.JOBS_WAIT if jobs else Because.IDLE_TARGET
    parts = []
    if jobs:
        parts.append(f"{wording.counted(jobs, 'waiting job')} without a slot")
    if idle:
        parts.append(f"{wording.counted(idle, 'free slot')} short of the idle target")
    creates = []
    for index, site in enumerate(sites):
        count = min(wanted, site.room) if site.cool_down is None else 0
        if count == 0:
            continue
        wanted -= count
        passed = "".join(f"; {_passed_over(earlier)}" for earlier in sites[:index])
        creates.append(
            Create(placement=site.placement.name, count=count, slug=slug, reason=" and ".join(parts) + passed)
        )
    return tuple(creates)


def _passed_over(site: _Site) -> str:
    """Why not (only) this placement."""
    if site.cool_down is None:
        return f"{site.placement.name} is full"
    cool = site.cool_down
    return f"{site.placement.name} cools down until {wording.instant(cool.until)} ({cool.scope}: {cool.reason})"


def _full_hold(limits: PoolLimits, census: Census) -> Hold:
    leaving = len(census.members(Group.LEAVING, Group.FAILED))
    reason = f"the pool has {census.alive} of at most {limits.max_instances} machines (max_instances)"
    if leaving:
        reason += f", {leaving} of them on the way out"
    reason += _without_room(census)
    return Hold(slug=Because.AT_MAX_INSTANCES, reason=reason)


def _without_room(census: Census) -> str:
    full = sum(each.no_room is not None for each in census.members(Group.FIT, Group.OUTDATED))
    return f"; {wording.counted(full, 'machine')} with too full a disk for another job (disk_reserve)" if full else ""


def _throttled_hold(limits: PoolLimits, tokens: float, now: datetime) -> Hold:
    until = throttle.next_token_at(limits.throttle, tokens, now)
    reason = (
        f"creation is throttled until {wording.instant(until)} (scale_throttle: {limits.throttle.per_s:g} a second)"
    )
    return Hold(slug=Because.THROTTLED, reason=reason, until=until)


def _site_hold(sites: tuple[_Site, ...]) -> Hold:
    cooling = [site for site in sites if site.cool_down is not None]
    said = "; ".join(_passed_over(site) for site in sites)
    if not cooling:
        return Hold(slug=Because.PLACEMENTS_FULL, reason=f"no placement has room: {said}")
    until = min(site.cool_down.until for site in cooling if site.cool_down is not None)
    which = "all placements cool down" if len(cooling) == len(sites) else "no placement may be used"
    return Hold(slug=Because.COOLING_DOWN, reason=f"{which} until {wording.instant(until)}: {said}", until=until)


def _fixed_hold(census: Census) -> Hold:
    if census.members(Group.FIT, Group.OUTDATED):
        reason = "every slot of the given machines is taken or avoided by the job" + _without_room(census)
        return Hold(slug=Because.NO_FREE_SLOT, reason=reason)
    return Hold(slug=Because.NO_HEALTHY_MACHINE, reason="none of the given machines is ready and healthy")
