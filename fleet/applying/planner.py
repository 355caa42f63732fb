"""Turns plans into rows: for each pool, one transaction that locks it, reads it, plans, and applies the plan.

The plan is made under the pool's lock, so nothing can change between what it saw and what it does, whichever manager
plans. Nothing here acts on the world: what is created or deleted is a row that the hands of other rooms find.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fleet.applying.blaming import blame_placements
from fleet.applying.requests import Intents
from fleet.model.ids import PoolName
from fleet.model.lifecycle import InstanceState, JobState
from fleet.model.plan import Assign, Create, Drain, Plan
from fleet.planning.planner import plan
from fleet.store import instances, jobs, leases, pools, snapshots
from fleet.store.book import Book, Pool
from fleet.store.database import Store, Tx

SOONEST_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one activation saw and did."""

    pools: int = 0
    creates: int = 0
    assigns: int = 0
    drains: int = 0
    deletes: int = 0


@dataclass(slots=True, kw_only=True)
class Planner:
    """The controller that plans.

    Attributes:
        plans: the last plan of each pool, for people and metrics.
        hint: wakes the rooms that a plan gave work to.
        freeze_next: the next round removes nothing: a clock was set, or the host slept.
        calendar_ahead: how far people's calendar is ahead of the store's time.
        wake_in: has the next round begin in so many seconds, when time alone will change a plan.
    """

    store: Store
    book: Book
    intents: Intents
    hint: Callable[..., None]
    plans: dict[PoolName, Plan] = field(default_factory=dict)
    planned_at: dict[PoolName, datetime] = field(default_factory=dict)
    freeze_next: bool = False
    calendar_ahead: Callable[[], timedelta] = lambda: timedelta(0)
    wake_in: Callable[[float], None] = lambda _seconds: None

    def activate(self) -> Applied:
        """Plan every pool."""
        total = Applied()
        frozen, self.freeze_next = self.freeze_next, False
        for pool in list(self.book.pools.values()):
            done = self.store.write(lambda tx, pool=pool: self._plan(tx, pool, frozen))  # type: ignore[misc]
            if done is not None:
                total = _sum(total, done)
        for gone in set(self.plans) - set(self.book.pools):
            self.plans.pop(gone, None)
            self.planned_at.pop(gone, None)
        self._tell(total)
        self._set_alarm()
        return total

    def freeze(self) -> None:
        """Let the next round remove nothing."""
        self.freeze_next = True

    def _set_alarm(self) -> None:
        waits = [
            made.next_at - self.planned_at[name]
            for name, made in self.plans.items()
            if made.next_at is not None and name in self.planned_at
        ]
        if waits:
            self.wake_in(max(SOONEST_S, min(waits).total_seconds()))

    def _tell(self, total: Applied) -> None:
        if total.creates:
            self.hint("provision")
        if total.assigns:
            self.hint("execute")
        if total.deletes:
            self.hint("reap")
        self.hint("intake")

    def _plan(self, tx: Tx, pool: Pool, frozen: bool) -> Applied | None:
        ahead = self.calendar_ahead()
        snapshot = snapshots.pool_snapshot(tx, pool.limits, now=tx.now, frozen_removals=frozen, calendar_ahead=ahead)
        if snapshot is None:
            return None
        made = plan(snapshot)
        late = blame_placements(tx, pool, snapshot, made)
        # what replaces a machine that came too late is planned anew, without the placement that is blamed for it
        creates = 0 if late else sum(self._create(tx, pool, create) for create in made.creates)
        assigns = sum(_assign(tx, assign) for assign in made.assigns)
        drains = sum(_drain(tx, drain) for drain in made.drains)
        deletes = sum(
            instances.remove(tx, each.instance_id, stimulus=each.slug, reason=each.reason) for each in made.deletes
        )
        snapshots.set_ask_limit(tx, pool.name, made.ask_limit)
        if creates and snapshot.tokens is not None:
            snapshots.set_tokens(tx, pool.name, snapshot.tokens - creates, tx.now)
        self.plans[pool.name] = made
        self.planned_at[pool.name] = tx.now
        if late:
            self.hint("plan")
        return Applied(pools=1, creates=creates, assigns=assigns, drains=drains, deletes=deletes)

    def _create(self, tx: Tx, pool: Pool, create: Create) -> int:
        for intent in self.intents.of(pool, create):
            pools.add_request(
                tx,
                request_id=intent.request_id,
                pool=pool.name,
                placement=create.placement,
                count=intent.count,
                parameters=intent.parameters,
                reason=create.reason,
            )
            for number in range(intent.count):
                instances.add(
                    tx,
                    instance_id=f"i-{intent.request_id[:12]}-{number}"
                    if intent.count > 1
                    else f"i-{intent.request_id[:12]}",
                    pool=pool.name,
                    request_id=intent.request_id,
                    placement=create.placement,
                    settings_version=pool.limits.settings_version,
                    reason=create.reason,
                    state_by=tx.now + timedelta(seconds=pool.settings.fleet.creating_timeout.total_seconds()),
                    **intent.columns,
                )
        return create.count


def _assign(tx: Tx, assign: Assign) -> int:
    lease_id = secrets.token_hex(12)
    granted = leases.grant(tx, lease_id=lease_id, job_key=assign.job, instance_id=assign.instance_id, slot=assign.slot)
    if granted is None:
        return 0
    tx.journal(
        "lease",
        lease_id,
        assign.slug,
        assign.reason,
        new=granted.state.value,
        job_key=assign.job,
        instance_id=assign.instance_id,
    )
    jobs.move_job(
        tx,
        assign.job,
        None,
        JobState.STARTING,
        stimulus="leased",
        reason=f"slot {assign.slot} of {assign.instance_id}: {assign.reason}",
        lease_id=lease_id,
    )
    return 1


def _drain(tx: Tx, drain: Drain) -> int:
    if drain.only_idle and tx.sql.execute(instances.active_leases_of(drain.instance_id)).scalar_one():
        return 0
    return instances.move(
        tx,
        drain.instance_id,
        InstanceState.DRAINING,
        stimulus=drain.slug,
        reason=drain.reason,
        only_from=[InstanceState.READY],
        drain_reason=drain.reason,
    )


def _sum(one: Applied, two: Applied) -> Applied:
    def add(name: str) -> int:
        return int(getattr(one, name)) + int(getattr(two, name))

    fields: Mapping[str, Any] = {name: add(name) for name in ("pools", "creates", "assigns", "drains", "deletes")}
    return Applied(**fields)
