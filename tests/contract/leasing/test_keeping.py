"""A machine is given up by the manager that holds its pool, after it has tried itself, and by nobody else."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.leasing.keeping import Keeper
from fleet.machine.channels import Channels
from fleet.model.ids import InstanceId, PoolName
from fleet.model.lifecycle import InstanceState, LeaseState
from fleet.model.policy import PoolLimits
from fleet.store import instances, leases, managers
from fleet.store.book import Book, Pool
from fleet.store.database import Store
from tests.contract.store.world import TTL, HandClock, add_instance, add_pool, add_runner, begin, granted

NAME = PoolName("linux")
NOWHERE = '{"pipe_home": "/dev/null/nowhere"}'  # no agent can be started there


class World:
    """A manager's keeper, and a machine with a job that cannot be reached for eleven minutes by the rows."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.store = store
        self.clock = clock
        self.tried: list[str] = []
        self.me, self.instance, self.lease = store.write(self._rows)
        clock.advance(660)
        store.write(lambda tx: begin(tx, self.me, session="s-2"))
        fleet = SimpleNamespace(unreachable_timeout=timedelta(minutes=10))
        settings: Any = SimpleNamespace(fleet=fleet)
        pool = Pool(
            name=NAME,
            limits=PoolLimits(name=NAME, max_instances=1),
            settings=settings,
            provider=None,
            info=None,
            problem=None,
            client_key="",
            client_public_key="",
        )
        self.book = Book("store")
        self.book.replace({NAME: pool}, {})
        self.book.set_owned(store.write(lambda tx: managers.claim_pools(tx, self.me)))
        self.keeper = Keeper(
            store=store,
            book=self.book,
            me=self.me,
            channels=Channels(),
            submit=self._submit,
            hint=lambda *_: None,
        )

    def _rows(self, tx):
        me = begin(tx)
        add_pool(tx)
        add_runner(tx)
        instance = add_instance(tx, address=NOWHERE, unreachable_since=tx.now, machine_id="m")
        return me, instance, granted(tx, instance)

    def _submit(self, lane: str, name: str, work: Any, **_: Any) -> bool:
        self.tried.append(name)
        work()
        return True

    def state(self) -> InstanceState:
        row = self.store.read(lambda tx: instances.instance(tx, InstanceId(self.instance)))
        assert row is not None
        return row.state

    def lease_state(self) -> LeaseState:
        found = self.store.read(lambda tx: leases.lease(tx, self.lease))
        assert found is not None
        return found.state


@pytest.fixture
def world(store: Store, clock: HandClock) -> World:
    return World(store, clock)


def test_a_manager_tries_itself_before_it_gives_a_machine_up(world):
    world.keeper.activate()
    assert world.tried == ["reopen"]
    assert world.state() is InstanceState.READY
    assert world.lease_state() is LeaseState.GRANTED


def test_a_machine_that_stays_unreachable_is_lost_and_its_lease_ends_first(world):
    world.keeper.activate()
    world.keeper.activate()
    assert world.lease_state() is LeaseState.LOST
    assert world.state() is InstanceState.DELETING


def test_law_5_a_manager_that_lost_its_claim_gives_no_machine_up(world):
    world.keeper.activate()
    world.clock.advance(2 * TTL.total_seconds())

    def other_takes_over(tx):
        begin(tx, "m-2")
        managers.claim_pools(tx, "m-2")

    world.store.write(other_takes_over)
    world.keeper.activate()
    assert world.lease_state() is LeaseState.GRANTED
    assert world.state() is InstanceState.READY


def test_a_machine_that_was_reached_since_the_rows_were_read_is_not_lost(world):
    world.keeper.activate()
    as_read = world.store.read(lambda tx: instances.instance(tx, InstanceId(world.instance)))

    class SlowKeeper(Keeper):
        __slots__ = ()

        def _needed(self, tx, states):
            return [as_read]

    world.store.write(lambda tx: instances.update(tx, world.instance, unreachable_since=None))
    world.keeper.__class__ = SlowKeeper
    world.keeper.activate()
    assert world.lease_state() is LeaseState.GRANTED
