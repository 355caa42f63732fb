"""Which machines go, and which must wait until nobody may count on them: law 1.

A machine leaves for one of these reasons, in this order: it is unhealthy; outdated; over age; used up; or its pool is
retired, has more machines than it may, needs room for a job that cannot use it, or keeps more free slots than the
policy in force wants, the longest idle first.

What may get no job anyway covers no promise, so it drains at once. Anything else goes only

- without a job matched to it in this plan, and without lease (an outdated one drains under its leases, and is
  deleted after them);
- when the slots that remain still cover what polls hold (`asking`).

A machine that polls hold is not kept by them for long: its slots are *withdrawn* from the ask limit at once, so no new
poll is begun for them, and it goes when the polls in the air have returned. Hence `asking` decides when a machine
goes, never whether.

For idleness nothing goes while a job waits for a machine: it would be removed by the plan that makes one, or the next.

Not here: what is lost or an orphan (`lost`, `orphans`), and asking again for a deletion that takes too long (reaping).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.model.lifecycle import InstanceState
from fleet.model.plan import Because, Delete, Drain
from fleet.model.snapshot import InstanceView, PoolSnapshot
from fleet.planning import wording
from fleet.planning.census import Census, Group, used_up
from fleet.planning.demand import Demand
from fleet.planning.growth import BOUNDLESS
from fleet.planning.matching import Matching
from fleet.planning.stock import Stock

_ORDER = (Because.UNHEALTHY, Because.OUTDATED, Because.OVER_AGE, Because.USED_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that the choice of leavers looks at.

    Attributes:
        cover: slots that polls may count on before anything leaves.
        cramped: machines that waiting jobs need and that the full pool has no room for.
    """

    snapshot: PoolSnapshot
    census: Census
    demand: Demand
    matching: Matching
    stock: Stock
    cover: int
    cramped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaver:
    """A machine that should go, with the covering slots that go with it."""

    instance: InstanceView
    slots: int
    slug: Because
    reason: str
    only_idle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """What goes.

    Attributes:
        withdrawn: covering slots of all that should go, whether it goes now or when its polls have returned.
        next_at: when the next machine will have been idle for long enough.
    """

    drains: tuple[Drain, ...]
    deletes: tuple[Delete, ...]
    withdrawn: int
    next_at: datetime | None


def retire(scene: Scene) -> Retirement:
    """Choose what goes and what is withdrawn; in a round that removes nothing, only the latter."""
    chosen, free = [*_outdated(scene)], _free_machines(scene)
    if scene.snapshot.limits.retired:
        chosen += _retired(scene, free)
    elif not scene.snapshot.limits.fixed_inventory:
        chosen += _surplus(scene, free, going=len(chosen))
    idle, next_at = _idle(scene, free, chosen)
    chosen += idle
    withdrawn = sum(leaver.slots for leaver in chosen)
    if scene.snapshot.frozen_removals:
        return Retirement(drains=(), deletes=(), withdrawn=withdrawn, next_at=next_at)
    going = sorted([*_without_use(scene), *_uncounted(scene, chosen)], key=_rank)
    return Retirement(
        drains=tuple(_drain(leaver) for leaver in going if leaver.instance.state is InstanceState.READY),
        deletes=(*_ended(scene.census), *(_delete(leaver) for leaver in going if _is_empty(leaver, scene))),
        withdrawn=withdrawn,
        next_at=next_at,
    )


def idle_since(instance: InstanceView) -> datetime:
    """Since when it has been free: its last lease's end, or when it became ready."""
    return instance.idle_since or instance.state_at


def _outdated(scene: Scene) -> Iterator[Leaver]:
    version = scene.snapshot.limits.settings_version
    for instance in scene.census.members(Group.OUTDATED, Group.COMING_OUTDATED):
        if instance.state is InstanceState.READY or _is_unmatched(instance, scene):
            reason = f"it was made for settings version {instance.settings_version}, the pool has version {version}"
            yield _leaver(scene, instance, Because.OUTDATED, reason, only_idle=False)


def _retired(scene: Scene, free: list[InstanceView]) -> Iterator[Leaver]:
    for instance in (*free, *scene.census.members(Group.COMING)):
        if _is_unmatched(instance, scene):
            yield _leaver(scene, instance, Because.RETIRED, "its pool is retired and no job needs it")


def _surplus(scene: Scene, free: list[InstanceView], *, going: int) -> Iterator[Leaver]:
    """Machines above the limit, or in the way: first those not ready yet, the youngest first; then the longest idle."""
    census, limits = scene.census, scene.snapshot.limits
    going += len(census.members(Group.LEAVING, Group.FAILED, Group.UNFIT)) + len(_just_used_up(scene))
    most = limits.max_instances or BOUNDLESS
    above = max(0, census.alive - most)
    young = sorted(census.members(Group.COMING), key=lambda i: (i.state_at, i.instance_id), reverse=True)
    candidates = [i for i in (*young, *free) if _is_unmatched(i, scene)]
    for index, instance in enumerate(candidates[: max(0, above + scene.cramped - going)]):
        if index < above - going:
            reason = f"the pool has {census.alive} machines and may have {most}"
            yield _leaver(scene, instance, Because.SURPLUS, reason)
        else:
            reason = "the pool is full, and a waiting job cannot use this machine, which failed it"
            yield _leaver(scene, instance, Because.MAKES_ROOM, reason)


def _idle(scene: Scene, free: list[InstanceView], chosen: list[Leaver]) -> tuple[list[Leaver], datetime | None]:
    """The longest idle above the idle target, and when the next one is due."""
    limits, demand = scene.snapshot.limits, scene.demand
    if limits.fixed_inventory or scene.matching.expected or scene.matching.unmatched:
        return [], None
    gone = {leaver.instance.instance_id for leaver in chosen}
    ready = scene.stock.ready - sum(scene.stock.of(i) for i in free if i.instance_id in gone)
    leavers: list[Leaver] = []
    for instance in free:
        slots = scene.stock.of(instance)
        if instance.instance_id in gone or slots > ready - demand.idle_target:
            continue
        idle_for = scene.snapshot.now - idle_since(instance)
        if idle_for < demand.idle_time:
            return leavers, idle_since(instance) + demand.idle_time
        leavers.append(_leaver(scene, instance, Because.IDLE, _idleness(idle_for, demand, ready)))
        ready -= slots
    return leavers, None


def _idleness(idle_for: timedelta, demand: Demand, ready: int) -> str:
    free = wording.counted(ready, "free slot")
    return (
        f"it has been idle for {wording.span(idle_for)} (idle_time {wording.span(demand.idle_time)}); "
        f"{free}, {demand.idle_target} wanted"
    )


def _free_machines(scene: Scene) -> list[InstanceView]:
    """Ready, up to date, without lease and without a job of this plan; the longest idle first."""
    return sorted(
        (i for i in scene.census.members(Group.FIT) if not i.used_slots and _is_unmatched(i, scene)),
        key=lambda i: (idle_since(i), i.instance_id),
    )


def _is_unmatched(instance: InstanceView, scene: Scene) -> bool:
    return instance.instance_id not in scene.matching.taken


def _just_used_up(scene: Scene) -> list[InstanceView]:
    """Machines whose last use this plan gives away."""
    most, taken = scene.snapshot.limits.max_use_count, scene.matching.taken
    return [
        instance
        for instance in scene.census.members(Group.FIT)
        if most and instance.use_count + taken.get(instance.instance_id, 0) >= most
    ]


def _without_use(scene: Scene) -> Iterator[Leaver]:
    """What may get no job any more, and so covers no promise."""
    for instance in scene.census.members(Group.UNFIT, Group.FAILED):
        slug, reason = scene.census.faults[instance.instance_id]
        yield Leaver(instance=instance, slots=0, slug=slug, reason=reason, only_idle=False)
    limits = scene.snapshot.limits
    for instance in _just_used_up(scene):
        reason = used_up(instance.use_count + scene.matching.taken[instance.instance_id], limits)
        yield Leaver(instance=instance, slots=0, slug=Because.USED_UP, reason=reason, only_idle=False)
    for instance in scene.census.members(Group.STOPPED):
        if instance.state is InstanceState.STOPPED and limits.retired:
            yield _leaver(scene, instance, Because.RETIRED, "its pool is retired and no job needs it")


def _uncounted(scene: Scene, chosen: list[Leaver]) -> Iterator[Leaver]:
    """Of the chosen, those without which the rest still covers what polls hold."""
    spare = scene.cover - scene.snapshot.asking
    for leaver in chosen:
        if leaver.slots == 0 or leaver.slots <= spare:
            spare -= leaver.slots
            yield leaver


def _leaver(scene: Scene, instance: InstanceView, slug: Because, reason: str, *, only_idle: bool = True) -> Leaver:
    covers = instance.state is InstanceState.READY or not scene.demand.preemptive
    slots = scene.stock.of(instance) if covers else 0
    return Leaver(instance=instance, slots=slots, slug=slug, reason=reason, only_idle=only_idle)


def _rank(leaver: Leaver) -> int:
    return _ORDER.index(leaver.slug) if leaver.slug in _ORDER else len(_ORDER)


def _drain(leaver: Leaver) -> Drain:
    return Drain(
        instance_id=leaver.instance.instance_id, only_idle=leaver.only_idle, slug=leaver.slug, reason=leaver.reason
    )


def _is_empty(leaver: Leaver, scene: Scene) -> bool:
    """No lease and none given by this plan: it may be deleted in the same breath."""
    return not leaver.instance.used_slots and _is_unmatched(leaver.instance, scene)


def _delete(leaver: Leaver) -> Delete:
    return Delete(instance_id=leaver.instance.instance_id, slug=leaver.slug, reason=leaver.reason)


def _ended(census: Census) -> Iterator[Delete]:
    """Draining machines whose last lease has ended."""
    for instance in census.members(Group.LEAVING):
        if instance.state is InstanceState.DRAINING and not instance.used_slots:
            reason = f"it has no lease any more; it drained because {instance.drain_reason or 'a person said so'}"
            yield Delete(instance_id=instance.instance_id, slug=Because.DRAINED, reason=reason)
