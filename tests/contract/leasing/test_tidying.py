"""Machines are tidied when they are low, no more often than it helps, and get no job while they are full."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.leasing.tidying import Tidier
from fleet.machine.errors import AgentError
from fleet.model.ids import InstanceId, PoolName
from fleet.model.policy import PoolLimits
from fleet.settings.pools import PoolKind
from fleet.store import instances, leases, managers
from fleet.store.book import Book, Pool
from fleet.store.database import Store
from fleet.store.tables import journal
from tests.contract.store.world import HandClock, add_instance, add_pool, add_runner, begin, granted

NAME = PoolName("linux")
GIB = 1 << 30


class CrampedMachine:
    """A machine's channel: tells its free room, and makes some when it is asked to tidy."""

    def __init__(self) -> None:
        self.free = 50 * GIB
        self.gains = 0
        self.refuses = False
        self.asked: list[dict[str, Any]] = []

    @property
    def pulse(self) -> dict[str, Any]:
        return {"disks": [{"path": "/home/ci", "free_bytes": self.free, "size_bytes": 100 * GIB}]}

    def note_pulse(self, head: Mapping[str, Any]) -> None:
        assert head["ok"]

    def request(self, kind: str, timeout_s: float, /, **fields: Any) -> dict[str, Any]:
        assert kind == "tidy"
        self.asked.append(fields)
        if self.refuses:
            raise AgentError("failed", "being tidied already")
        self.free += self.gains
        gained = {"build": 2} if self.gains else {}
        freed = {"build": self.gains} if self.gains else {}
        return {"ok": True, "removed": gained, "freed_bytes": freed, "problems": []}


class World:
    """A tidier and one machine with a slot or two."""

    def __init__(self, store: Store, clock: HandClock, **limits: Any) -> None:
        self.store = store
        self.clock = clock
        self.machine = CrampedMachine()
        self.counted: list[tuple[str, str]] = []
        self.least: dict[str, int] = {}
        self.kind = PoolKind.AUTOSCALED
        self.me, self.instance = store.write(self._rows)
        self.fleet = SimpleNamespace(
            disk_low_watermark="10%", disk_high_watermark="20%", disk_reserve="1 GiB", prune_images=None
        )
        settings: Any = SimpleNamespace(fleet=self.fleet, kind=PoolKind.AUTOSCALED)
        self.settings = settings
        pool = Pool(
            name=NAME,
            limits=PoolLimits(name=NAME, max_instances=1, **limits),
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
        channels: Any = SimpleNamespace(get=lambda instance: self.machine)
        self.tidier = Tidier(
            store=store,
            book=self.book,
            me=self.me,
            channels=channels,
            submit=self._submit,
            hint=lambda *_: None,
            watcher=self,
        )

    def _rows(self, tx):
        me = begin(tx)
        add_pool(tx)
        add_runner(tx)
        return me, add_instance(tx, machine_id="m")

    def _submit(self, lane: str, name: str, work: Any, **_: Any) -> bool:
        assert lane.startswith("tidy:")  # never in the lane of the instance's jobs
        work()
        return True

    def tidied(self, pool: str, outcome: str, removed: Mapping[str, int], freed_bytes: Mapping[str, int]) -> None:
        self.counted.append((pool, outcome))

    def least_free(self, free_bytes: Mapping[str, int]) -> None:
        self.least = dict(free_bytes)

    def activate(self, after_s: float = 0.0) -> Any:
        self.clock.advance(after_s)
        return self.tidier.activate()

    def row(self) -> Any:
        return self.store.read(lambda tx: instances.instance(tx, InstanceId(self.instance)))

    def journal(self) -> list[str]:
        return self.store.read(lambda tx: [row.stimulus for row in tx.sql.execute(journal.select())])


@pytest.fixture
def world(store: Store, clock: HandClock) -> World:
    return World(store, clock)


def test_a_machine_with_room_is_left_alone(world):
    world.activate()
    assert world.machine.asked == []
    assert world.least == {NAME: 50 * GIB}


def test_a_low_machine_is_tidied_up_to_the_high_watermark(world):
    world.machine.free, world.machine.gains = 5 * GIB, 20 * GIB
    world.activate()
    (asked,) = world.machine.asked
    assert asked["low"] == {"bytes": 0, "percent": 10.0}
    assert asked["high"] == {"bytes": 0, "percent": 20.0}
    assert asked["prune_images"] is True
    assert world.counted == [(NAME, "done")]
    assert "tidied" in world.journal()
    world.activate(3600)
    assert len(world.machine.asked) == 1  # it has room now


def test_where_there_is_nothing_to_remove_it_is_asked_less_and_less_often(world):
    world.machine.free = 5 * GIB
    for _ in range(24 * 60):
        world.activate(60)
    assert 40 < len(world.machine.asked) < 60  # twice an hour, after a few closer ones
    assert world.counted[-1] == (NAME, "nothing_to_remove")


def test_the_end_of_a_job_is_a_reason_to_look_again(world):
    world.machine.free = 5 * GIB
    lease = world.store.write(lambda tx: granted(tx, world.instance))
    world.activate()
    world.activate(1)
    assert len(world.machine.asked) == 1
    for state in ("RUNNING", "CLEANING", "RELEASED"):
        moved = leases.LeaseState[state]
        world.store.write(lambda tx, moved=moved: leases.move_lease(tx, lease, moved, stimulus="x", reason="y"))
    world.activate(1)
    assert len(world.machine.asked) == 2


def test_a_refusal_is_counted_and_asked_again_later(world):
    world.machine.free, world.machine.refuses = 5 * GIB, True
    world.activate()
    world.activate(1)
    assert world.counted == [(NAME, "failed")]
    world.activate(200)
    assert world.counted == [(NAME, "failed")] * 2


def test_below_the_reserve_a_machine_gets_no_job_until_there_is_room(world):
    world.machine.free = GIB // 2
    world.activate()
    assert "512 MiB are free in /home/ci" in world.row().no_room
    assert world.row().unhealthy is None
    world.activate(5)
    world.machine.free = 30 * GIB
    world.activate(5)
    assert world.row().no_room is None
    assert [each for each in world.journal() if each in {"full", "has_room"}] == ["full", "has_room"]


def test_zero_switches_both_off(world):
    world.fleet.disk_low_watermark = world.fleet.disk_reserve = "0"
    world.machine.free = 0
    world.activate()
    assert world.machine.asked == []
    assert world.row().no_room is None


def test_images_of_given_hosts_stay_unless_a_person_says_so(world):
    world.machine.free = 5 * GIB
    world.settings.kind = PoolKind.STATIC
    world.activate()
    world.fleet.prune_images = True
    world.activate(3600)
    assert [asked["prune_images"] for asked in world.machine.asked] == [False, True]


def test_a_machine_for_one_job_is_not_tidied(store, clock):
    world = World(store, clock, max_use_count=1)
    world.machine.free = 5 * GIB
    world.activate()
    assert world.machine.asked == []


def test_an_old_agent_that_tells_of_no_disk_is_left_alone(world):
    world.machine = SimpleNamespace(pulse={"free_bytes": 0})
    assert world.activate().seen == 0
