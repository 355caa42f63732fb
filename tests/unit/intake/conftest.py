"""Intake on a real SQLite store, with real lanes and a pretend GitLab; only the hints go nowhere."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.state import Knobs
from fleet.execution.features import features_of
from fleet.gitlab.cancel import Cancel
from fleet.gitlab.outcomes import JobOffer
from fleet.intake.acknowledging import Acknowledger
from fleet.intake.asking import Intake
from fleet.model.ids import ManagerId, PoolName, RunnerKey
from fleet.runtime.clock import Clock
from fleet.runtime.configuring import Configurator
from fleet.runtime.lanes import Lanes
from fleet.runtime.meters import Meters
from fleet.runtime.providers import Plugins
from fleet.runtime.servers import Servers
from fleet.runtime.sessions import Sessions
from fleet.settings.loading import load
from fleet.store import leases, managers, pools, snapshots
from fleet.store.book import Book, Runner
from tests.acceptance.manager import wait_until
from tests.contract.store.world import TTL, HandClock, opened

ME = ManagerId("s_0123456789ab")
_sessions = itertools.count(1)


class Room:
    """One manager's intake, stepped by hand.

    The store's clock is ours: `clock.advance(60)`.
    """

    def __init__(
        self, gitlab: PretendGitLab, directory: pathlib.Path, *, runner_keys: str = "", slots: int = 4
    ) -> None:
        self.gitlab = gitlab
        self.at_gitlab = gitlab.create_runner()
        self.clock = HandClock()
        self.store = opened(f"sqlite:///{directory}/fleet.sqlite", clock=self.clock)
        self.store.write(
            lambda tx: managers.begin_session(
                tx, ME, session=str(next(_sessions)), version="1", host="here", api="", ttl=TTL * 1000
            )
        )
        self.book = Book("tests")
        file = directory / "fleet.toml"
        file.write_text(f"""
concurrent = 50
[fleet]
state_dir = "{directory}"
[[runners]]
name = "unit"
url = "{gitlab.url}"
id = {self.at_gitlab["id"]}
token = "{self.at_gitlab["token"]}"
executor = "instance"
request_concurrency = 4
{runner_keys}
  [runners.autoscaler]
  plugin = "local"
  max_instances = 4
""")
        settings = load(file, {"HOME": str(directory)}).settings
        assert settings is not None
        self.configurator = Configurator(store=self.store, book=self.book, plugins=Plugins(), state_dir=str(directory))
        self.configurator.apply(settings)
        (self.runner,) = self.book.runners.values()
        self.pool: PoolName = self.runner.pool
        self.store.write(lambda tx: snapshots.set_ask_limit(tx, self.pool, slots))
        wall = Clock()
        self.servers = Servers(now=wall.wall, features=features_of, sessions=Sessions(self.store, ME), max_age=TTL)
        self.lanes, self.cancel = Lanes(), Cancel()
        shared: dict[str, Any] = {
            "store": self.store, "book": self.book, "me": ME, "submit": self.lanes.submit,
            "hint": lambda *names: None, "server_of": self.servers.of, "info_of": self.servers.info_of,
            "may_speak": lambda: True,
        }  # fmt: skip
        self.acknowledger = Acknowledger(**shared)
        self.intake = Intake(
            **shared,
            acknowledger=self.acknowledger,
            cancel=self.cancel,
            concurrent=50,
            check_interval_s=1.0,
            watcher=Meters(ME),
        )

    @property
    def key(self) -> RunnerKey:
        return self.runner.key

    def ask(self) -> int:
        """One activation, and the end of the polls that it began; how many those were."""
        asked = self.intake.activate().asked
        self.wait()
        return asked

    def wait(self) -> None:
        """Every poll and acknowledgement has come to its end."""
        lanes = (f"poll:{self.key}", f"gitlab:{self.gitlab.url}")
        wait_until(lambda: not any(self.lanes.busy(lane) for lane in lanes), 60, "the end of the calls")

    def offer(self) -> JobOffer:
        """A job as GitLab hands it over."""
        found = self.servers.of(self.runner).request_job(
            token=self.runner.token, system_id=ME, info=self.servers.info_of(self.runner)
        )
        assert isinstance(found, JobOffer)
        return found

    def reserve(self, name: str = "r1") -> str:
        assert self.store.write(
            lambda tx: leases.ask(tx, reservation_id=name, pool=self.pool, runner_key=self.key, manager_id=ME)
        )
        return name

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.store.read(lambda tx: [tuple(row) for row in tx.sql.exec_driver_sql(sql)])

    @property
    def reservations(self) -> list[str]:
        return [state for (state,) in self.rows("SELECT state FROM reservations")]

    @property
    def jobs(self) -> list[str]:
        return [state for (state,) in self.rows("SELECT state FROM jobs")]

    def forget_runner(self) -> Runner:
        """The configuration no longer names the runner."""
        self.store.write(lambda tx: pools.retire_runner(tx, self.key))
        self.configurator.refresh()
        return self.runner

    def close(self) -> None:
        self.cancel.set()
        self.lanes.close(10)
        self.servers.close()
        self.configurator.close()
        self.store.close()


@pytest.fixture
def gitlab():
    """Ends with the question whether the protocol was kept."""
    with PretendGitLab(threads=16, knobs=Knobs(update_interval_s=1)) as server:
        yield server
        assert server.violations() == []


@pytest.fixture
def make_room(gitlab, tmp_path):
    made = []

    def make(**keywords):
        made.append(Room(gitlab, tmp_path, **keywords))
        return made[-1]

    yield make
    for room in made:
        room.close()


@pytest.fixture
def room(make_room):
    return make_room()
