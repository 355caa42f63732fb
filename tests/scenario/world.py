"""The part of a manager that has to do with providers, stepped by hand: real store, real settings, real controllers.

Work that a manager hands to lanes is done at once, time passes only when the test says so, and the clouds are in
memory, so an hour of a sick cloud takes no time. What the rooms of machines and jobs would do is done by `boot`,
`enqueue` and `finish`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleet.applying.planner import Planner
from fleet.applying.requests import Intents
from fleet.machine.channels import Channels
from fleet.model.ids import ManagerId, RunnerKey
from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.provisioning.creating import Creator
from fleet.provisioning.observing import Observer
from fleet.reaping.deleting import Reaper
from fleet.runtime.configuring import Configurator
from fleet.sdk import Provider
from fleet.settings.loading import loads
from fleet.store import instances, jobs, leases, managers, pools, snapshots
from fleet.store.book import Book
from fleet.store.database import Store
from fleet.store.journal import story_of
from tests.contract.store.world import TTL, HandClock, opened

ME = ManagerId("m-1")
STORE = "store-0001"
POOL = """
[[runners]]
name = "{name}"
url = "https://gitlab.example"
id = {number}
token = "t-{number}"
executor = "instance"
  [runners.autoscaler]
  plugin = "memory"
  update_interval = "1ms"
  update_interval_when_expecting = "1ms"
  {keys}
  [runners.autoscaler.plugin_config]
  cloud = "{name}"
  [runners.autoscaler.fleet]
  pool = "{name}"
  {fleet}
  {tables}
"""


def pool_table(name: str = "p", *, number: int = 1, keys: str = "", fleet: str = "", tables: str = "") -> str:
    """One runner and its pool."""
    return POOL.format(name=name, number=number, keys=keys, fleet=fleet, tables=tables)


def placements(*names: str, **more: Mapping[str, Any]) -> str:
    """`[[runners.autoscaler.placements]]` tables; `more` adds keys to one, by its name."""
    text = ""
    for name in names:
        text += f'\n[[runners.autoscaler.placements]]\nname = "{name}"\n'
        text += "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in more.get(name, {}).items())
    return text


class Clouds:
    """Stands in for the installed plugins: every pool has the provider that the test made for it."""

    names: tuple[str, ...] = ("memory",)

    def __init__(self, by_pool: Mapping[str, Provider]) -> None:
        self.by_pool = dict(by_pool)

    def provider(self, pool: Any, *, state_dir: str, store_id: str) -> Provider:
        return self.by_pool[pool.name]


class World:
    """One manager on one store."""

    def __init__(self, url: str, clouds: Mapping[str, Provider], config: str, clock: HandClock | None = None) -> None:
        self.clock = clock or HandClock()
        self.url = url
        self.store: Store = opened(url, clock=self.clock)
        self.seal = self.store.seal
        self.plugins = Clouds(clouds)
        self._numbers = itertools.count(1)
        self.down: set[str] = set()
        self.begin(config)

    def begin(self, config: str) -> None:
        """Start the manager: session, claims, book, controllers."""
        write = self.store.write
        store_id = write(lambda tx: managers.store_identity(tx, STORE))
        write(
            lambda tx: managers.begin_session(
                tx, ME, session=f"s-{next(self._numbers)}", version="0", host="here", api=None, ttl=TTL
            )
        )
        self.book = Book(store_id)
        self.configurator = Configurator(store=self.store, book=self.book, plugins=self.plugins, state_dir="/nowhere")  # type: ignore[arg-type]
        shared: dict[str, Any] = {
            "store": self.store,
            "book": self.book,
            "me": ME,
            "submit": self.submit,
            "hint": lambda *_: None,
        }
        self.planner = Planner(
            store=self.store, book=self.book, intents=Intents(store_id=store_id), hint=lambda *_: None
        )
        self.creator, self.observer = Creator(**shared), Observer(**shared)
        self.reaper = Reaper(**shared, channels=Channels())
        self.configure(config)

    def configure(self, config: str) -> None:
        """Bring a configuration into force, as a reload does."""
        loaded = loads(config.encode(), "/nowhere/fleet.toml", {"STATE_DIRECTORY": "/nowhere"})
        assert loaded.settings is not None, loaded.lines()
        self.configurator.apply(loaded.settings)
        self.book.set_owned(self.store.write(lambda tx: managers.claim_pools(tx, ME)))

    def restart(self, config: str) -> None:
        """Kill the manager and start it anew on the same database."""
        self.store.close()
        self.store = opened(self.url, self.seal, self.clock)
        self.begin(config)

    def close(self) -> None:
        self.store.close()

    def submit(self, lane: str, name: str, work: Callable[[], None], **_: Any) -> bool:
        """Do it at once, unless the lane hangs."""
        if any(lane.endswith(each) for each in self.down):
            return False
        work()
        return True

    # a round of the manager, and time

    def step(self) -> None:
        """Every controller once, in the order in which one hints the next."""
        self.planner.activate()
        self.creator.activate()
        self.observer.activate()
        self.reaper.activate()

    def run(self, seconds: float, *, every_s: float = 2.0, boot: bool = True) -> None:
        """Let time pass, a round every few seconds; machines that run become ready unless told otherwise."""
        passed = 0.0
        while passed < seconds:
            if boot:
                self.boot()
            self.step()
            self.clock.advance(every_s)
            passed += every_s
        self.step()

    def boot(self) -> int:
        """What leasing does: machines that run become ready."""

        def ready(tx: Any) -> int:
            found = instances.instances_in(tx, list(self.book.pools), [InstanceState.BOOTING])
            for each in found:
                for state in (InstanceState.PREPARING, InstanceState.READY):
                    instances.move(tx, each.instance_id, state, stimulus="booted", reason="it is up")
                instances.update(tx, each.instance_id, idle_since=tx.now, ready_at=tx.now)
                snapshots.forget_cool_downs(tx, self.book.pools[each.pool].scopes_of(each.placement))
            return len(found)

        return self.store.write(ready)

    # jobs

    def enqueue(self, count: int = 1, *, pool: str = "p", runner: str | None = None) -> list[str]:
        """Jobs that wait for a slot of the pool."""
        key = RunnerKey(runner or next(str(r.key) for r in self.book.runners.values() if r.pool == pool))

        def add(tx: Any) -> list[str]:
            made = []
            for _ in range(count):
                number = next(self._numbers)
                made.append(f"j-{number}")
                jobs.receive(
                    tx,
                    job_key=made[-1],
                    runner_key=key,
                    pool=pool,
                    url="https://gitlab.example",
                    gitlab_job_id=number,
                    project_id=1,
                    name="build",
                    token="job",
                    payload=b"{}",
                    deadline_at=tx.now + 100 * TTL,
                    owner=ME,
                )
                jobs.move_job(tx, made[-1], 1, JobState.WAITING, stimulus="acknowledged", reason="told")
                leases.owe(tx, f"r-{number}", pool=pool, runner_key=key, manager_id=ME, job_key=made[-1])
            return made

        return self.store.write(add)

    def finish(self, *keys: str) -> None:
        """Their scripts have ended and their slots are clean."""

        def end(tx: Any) -> None:
            for key in keys:
                job = jobs.job(tx, key)
                assert job is not None
                assert job.lease is not None
                for state in (LeaseState.RUNNING, LeaseState.CLEANING, LeaseState.RELEASED):
                    leases.move_lease(tx, job.lease, state, stimulus="ended", reason="it is over")
                jobs.move_job(tx, key, None, JobState.RUNNING, stimulus="started", reason="it ran")
                jobs.move_job(tx, key, None, JobState.FINISHING, stimulus="ended", reason="it is over")
                jobs.move_job(tx, key, None, JobState.FINISHED, stimulus="told", reason="GitLab knows")

        self.store.write(end)

    def give_up(self, key: str) -> None:
        """The job needs no machine any more."""

        def end(tx: Any) -> None:
            jobs.move_job(tx, key, None, JobState.FINISHING, stimulus="canceled", reason="a person said so")
            jobs.move_job(tx, key, None, JobState.FINISHED, stimulus="told", reason="GitLab knows")
            leases.forget_demand(tx, key)

        self.store.write(end)

    # what the rows say

    def rows(self, *states: InstanceState, pool: str | None = None) -> list[Any]:
        """Instances in these states; none named: all that are not gone."""
        wanted = states or tuple(set(InstanceState) - {InstanceState.GONE})
        names = [pool] if pool else list(self.book.pools)
        return self.store.read(lambda tx: instances.instances_in(tx, names, wanted))

    def job(self, key: str) -> Any:
        return self.store.read(lambda tx: jobs.job(tx, key))

    def lease_of(self, key: str) -> Any:
        job = self.job(key)
        return None if job.lease is None else self.store.read(lambda tx: leases.lease(tx, job.lease))

    def is_leased(self, key: str) -> bool:
        return self.job(key).state is JobState.STARTING

    def cool_downs(self) -> dict[str, Any]:
        return {each.scope: each for each in self.store.read(snapshots.running_cool_downs)}

    def open_requests(self) -> set[str]:
        return self.store.read(pools.open_request_ids)

    def story(self, object_id: str) -> list[Any]:
        return self.store.read(lambda tx: story_of(tx.sql, object_id))

    def stimuli(self, object_id: str) -> Sequence[str]:
        return [line.stimulus for line in self.story(object_id)]

    def sick(self, pool: str, provider: Provider) -> None:
        """From now on the pool's provider is this one."""
        self.plugins.by_pool[pool] = provider
        changed = {
            name: dataclasses.replace(each, provider=provider) if name == pool else each
            for name, each in self.book.pools.items()
        }
        self.book.replace(changed, self.book.runners)  # type: ignore[arg-type]
