"""The one place that chooses: a pool's rows at one moment -> what to do, with reasons.

`plan()` looks at nothing but the snapshot; equal snapshots give equal plans, whatever the order of their rows. It goes
from what must be to what may be: sort the instances (`census`), read the policy (`demand`), give slots to jobs
(`matching`), count what is left (`stock`), make what is short (`growth`), let go of what is too much (`retirement`),
and say how many polls the rest can back.

Slots wanted are leased + owed + idle target. A reservation that a poll holds is never demand: it makes no machine, and
keeps one only until that poll returns.

Applying a plan and planning again at the same instant changes nothing. Law 1 is kept here by choice and once more at
the row, where a removal is compared with what leases there are by then.
"""

from __future__ import annotations

from datetime import datetime

from fleet.model.lifecycle import InstanceState
from fleet.model.plan import Inputs, Plan
from fleet.model.snapshot import PoolSnapshot
from fleet.planning import periods
from fleet.planning.census import Census, Group, take_census
from fleet.planning.demand import Demand, weigh
from fleet.planning.growth import BOUNDLESS, Growth, grow, machines_for, most_instances, slots_per_machine
from fleet.planning.matching import match
from fleet.planning.retirement import Retirement, Scene, retire
from fleet.planning.stock import cover, take_stock
from fleet.planning.waits import explain_waits

_MAY_NOT_BE_LATE = frozenset({InstanceState.READY, InstanceState.DRAINING, InstanceState.DELETING, InstanceState.GONE})


def plan(snapshot: PoolSnapshot) -> Plan:
    """Decide what to do with a pool now."""
    limits = snapshot.limits
    census = take_census(snapshot)
    demand = weigh(snapshot, census.leased)
    matching = match(census, snapshot.waiting)
    stock = take_stock(census, matching)
    short = len(matching.unmatched)
    growth = grow(snapshot, census, jobs=short, idle=max(0, demand.idle_target - stock.ready - stock.coming))
    room = growth.open_room * slots_per_machine(limits)
    covering = cover(stock, ready_only=demand.preemptive, room=room, short=short)
    retirement = retire(
        Scene(
            snapshot=snapshot,
            census=census,
            demand=demand,
            matching=matching,
            stock=stock,
            cover=covering,
            cramped=max(0, machines_for(short, limits) - growth.count) if growth.is_crowded else 0,
        )
    )
    return Plan(
        pool=snapshot.pool,
        inputs=_inputs(snapshot, census, demand),
        ask_limit=0 if limits.retired else min(BOUNDLESS, max(0, covering - retirement.withdrawn)),
        preemptive=demand.preemptive,
        idle_target=demand.idle_target,
        desired_instances=_desired_instances(snapshot, census, demand),
        policy=demand.index,
        creates=growth.creates,
        assigns=matching.assigns,
        drains=retirement.drains,
        deletes=retirement.deletes,
        waits=explain_waits(matching, growth, limits),
        next_at=_next_at(snapshot, growth, retirement),
    )


def _inputs(snapshot: PoolSnapshot, census: Census, demand: Demand) -> Inputs:
    limits, waiting = snapshot.limits, len(snapshot.waiting)
    draining = [i for i in census.members(Group.LEAVING) if i.state is InstanceState.DRAINING]
    lost = sum(limits.capacity_per_instance - len(i.used_slots) for i in (*census.members(Group.UNFIT), *draining))
    return Inputs(
        instance_count=census.alive,
        max_instance_count=limits.max_instances,
        capacity_per_instance=limits.capacity_per_instance,
        acquired=census.leased,
        idle=census.slots(census.members(Group.FIT, Group.OUTDATED)),
        pending=census.slots(census.members(Group.COMING, Group.COMING_OUTDATED)),
        unavailable_capacity=max(0, lost),
        reserved=snapshot.asking + waiting,
        asking=snapshot.asking,
        waiting=waiting,
        idle_count=demand.policy.idle_count,
        scale_factor=demand.policy.scale_factor,
        scale_factor_limit=demand.policy.scale_factor_limit,
    )


def _desired_instances(snapshot: PoolSnapshot, census: Census, demand: Demand) -> int:
    if snapshot.limits.fixed_inventory:
        return census.alive
    slots = census.leased + len(snapshot.waiting) + demand.idle_target
    return min(machines_for(slots, snapshot.limits), most_instances(snapshot.limits))


def _next_at(snapshot: PoolSnapshot, growth: Growth, retirement: Retirement) -> datetime | None:
    """The first instant at which this plan, with nothing else changed, would be another."""
    limits, now = snapshot.limits, snapshot.now
    if snapshot.frozen_removals:
        return now  # what was held back is due at once
    times = [growth.next_at, growth.hold.until if growth.hold else None, retirement.next_at]
    if not (limits.retired or limits.fixed_inventory):
        ahead = snapshot.calendar_ahead
        change = periods.next_change(limits.policies, now + ahead)
        times.append(None if change is None else change - ahead)
    for instance in snapshot.instances:
        if instance.state is InstanceState.READY and limits.max_age is not None:
            times.append(instance.created_at + limits.max_age)
        elif instance.state not in _MAY_NOT_BE_LATE:
            times.append(instance.state_by)
    return min((at for at in times if at is not None and at > now), default=None)
