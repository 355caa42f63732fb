"""Pools under polls that find nothing, for hours of pretended time: none makes a machine, and the last machine goes.

`World` is the least that a pool needs around `plan()`: machines take a minute to become ready and half a minute to
vanish, a poll is held for its length, and a job runs for a minute. Every step is ten seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from fleet.planning.planner import plan
from tests.unit.planning.rows import HOUR, MINUTE, S, apply, created, instance, job, policy, pool

STEP = timedelta(seconds=10)
ON_DEMAND = policy(idle_count=0, idle_time=5 * MINUTE)


@dataclass
class World:
    snapshot: object
    poll: timedelta
    polls: list = field(default_factory=list)
    made: int = 0
    removed: int = 0
    running: dict = field(default_factory=dict)

    def run(self, length, workers=1):
        """Let time pass; as many polls as workers are in the air whenever the ask limit lets them."""
        end = self.snapshot.now + length
        while self.snapshot.now < end:
            self._plan()
            ask_limit = plan(self.snapshot).ask_limit
            self.polls = [ends for ends in self.polls if ends > self.snapshot.now]
            while len(self.polls) < min(workers, ask_limit):
                self.polls.append(self.snapshot.now + self.poll)
            self.snapshot = replace(self.snapshot, asking=len(self.polls), now=self.snapshot.now + STEP)
            self._move_on()
        return self

    def receive(self, number):
        waiting = replace(job(number), received_at=self.snapshot.now)
        self.snapshot = replace(self.snapshot, waiting=(*self.snapshot.waiting, waiting))

    def _plan(self):
        decided = plan(self.snapshot)
        self.made += created(decided)
        self.removed += len(decided.deletes)
        for assign in decided.assigns:
            self.running[assign.instance_id] = self.snapshot.now + MINUTE
        self.snapshot = apply(self.snapshot, decided)
        assert plan(self.snapshot).changes_nothing

    def _move_on(self):
        self.snapshot = replace(
            self.snapshot, instances=tuple(row for each in self.snapshot.instances if (row := self._later(each)))
        )

    def _later(self, row):
        now = self.snapshot.now
        if row.state is S.REQUESTED and now - row.state_at >= MINUTE:
            return replace(row, state=S.READY, state_at=now, state_by=None, idle_since=now)
        if row.state is S.DELETING and now - row.state_at >= MINUTE / 2:
            return None
        if row.used_slots and now >= self.running[row.instance_id]:
            return replace(row, used_slots=(), idle_since=now)
        return row

    @property
    def alive(self):
        return len(self.snapshot.instances)


def world(*rows, poll=50 * timedelta(seconds=1), **limits):
    limits.setdefault("policies", (ON_DEMAND,))
    return World(pool(*rows, **limits), poll)


@pytest.mark.parametrize("most", [0, 1, 5])
@pytest.mark.parametrize("preemptive", [None, True])
def test_a_poll_held_for_ten_minutes_makes_no_machine_and_the_last_one_goes(most, preemptive):
    policies = (replace(ON_DEMAND, preemptive_mode=preemptive),)
    held = world(instance("i-1", idle=4 * MINUTE), poll=10 * MINUTE, max_instances=most, policies=policies)
    held.run(12 * MINUTE)
    assert held.made == 0
    assert held.removed == 1
    assert held.alive == 0
    held.run(HOUR)
    assert (held.made, held.alive) == (0, 0), "it stays at zero"


def test_where_the_poll_counts_on_the_machine_that_goes_when_the_poll_returns():
    held = world(instance("i-1", idle=4 * MINUTE), poll=10 * MINUTE, max_instances=1)
    held.run(9 * MINUTE)
    assert (held.removed, held.alive) == (0, 1), "the poll may still bring a job for it"
    held.run(2 * MINUTE)
    assert (held.removed, held.alive) == (1, 0)


@pytest.mark.parametrize("poll", [timedelta(0), timedelta(seconds=10), timedelta(seconds=50)])
@pytest.mark.parametrize("workers", [1, 8])
def test_asking_again_and_again_neither_makes_nor_removes_anything(poll, workers):
    idle = world(poll=poll).run(2 * HOUR, workers)
    assert (idle.made, idle.removed) == (0, 0)


@pytest.mark.parametrize("workers", [1, 8])
def test_a_warm_pool_is_held_steady_under_polls(workers):
    warm = world(policies=(policy(idle_count=3, idle_time=MINUTE),)).run(2 * HOUR, workers)
    assert (warm.made, warm.removed, warm.alive) == (3, 0, 3)


def test_each_job_on_demand_makes_one_machine_at_most_and_reuses_what_is_there():
    demand = world()
    for number in range(6):
        demand.receive(number)
        demand.run(4 * MINUTE)
    assert (demand.made, demand.removed) == (1, 0), "within idle_time the machine is used again"
    demand.run(10 * MINUTE)
    assert (demand.made, demand.removed, demand.alive) == (1, 1, 0)
    demand.receive(99)
    demand.run(20 * MINUTE)
    assert (demand.made, demand.removed, demand.alive) == (2, 2, 0)


def test_a_job_in_a_warm_pool_is_replaced_by_one_machine_and_the_extra_one_goes():
    warm = world(policies=(policy(idle_count=2, idle_time=5 * MINUTE),)).run(10 * MINUTE, workers=4)
    warm.receive(1)
    warm.run(HOUR, workers=4)
    assert (warm.made, warm.removed, warm.alive) == (3, 1, 2)
