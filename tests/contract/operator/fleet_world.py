"""A manager with its real parts on a real store, its servers listening, and rows to look at; no controller runs."""

from __future__ import annotations

import contextlib
import pathlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.runtime.app import Manager
from fleet.runtime.meters import Meters
from fleet.runtime.reloading import Reloader
from fleet.runtime.starting import make_manager
from fleet.runtime.web import Web
from fleet.settings.environment import Overrides
from fleet.settings.loading import load
from fleet.store import instances, jobs, leases
from fleet.store.database import Tx
from tests.contract.store import world

RUNNER = "https://gitlab.example|7"
POOL = "linux"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def write_config(path: pathlib.Path, state: pathlib.Path, *, fleet: str = "", top: str = "", pool: str = "") -> None:
    """A runner with a pool of local machines; the ports are free ones."""
    path.write_text(
        f"""
concurrent = 20
listen_address = "127.0.0.1:{free_port()}"
{top}
[fleet]
state_dir = "{state}"
api_listen = "127.0.0.1:{free_port()}"
reserve_free_bytes = 0
{fleet}
[[runners]]
name = "one"
url = "https://gitlab.example"
id = 7
token = "word-that-is-secret"
executor = "instance"
limit = 9
request_concurrency = 4
  [runners.autoscaler]
  plugin = "local"
  max_instances = 5
  capacity_per_instance = 2
  {pool}
  [runners.autoscaler.fleet]
  pool = "{POOL}"
  [[runners.autoscaler.policy]]
  idle_count = 0
  idle_time = "10m"
"""
    )


@dataclass(slots=True, kw_only=True)
class World:
    """A manager that was made and not started, so that rows change only when a test changes them."""

    manager: Manager
    web: Web
    meters: Meters
    reloader: Reloader
    client: httpx.Client

    def write(self, work: Any) -> Any:
        return self.manager.store.write(work)

    def instance(self, name: str | None = None, **columns: Any) -> str:
        return self.write(lambda tx: world.add_instance(tx, name, pool=POOL, **columns))

    def job(self, name: str | None = None, **more: Any) -> str:
        return self.write(lambda tx: world.add_job(tx, name, pool=POOL, runner=RUNNER, owner=self.manager.me, **more))

    def lease(self, instance: str, job: str, *, slot: int = 0) -> str:
        return self.write(lambda tx: world.granted(tx, instance, job, slot=slot))

    def run(self, job: str) -> None:
        self.write(lambda tx: _run(tx, job))

    def finish(self, job: str, reason: str | None = None) -> None:
        self.write(lambda tx: _finish(tx, job, reason))

    def goes_through(self, instance: str, *states: InstanceState) -> None:
        """Bring an instance through states, each in a transaction of its own."""
        for state in states:
            if state is InstanceState.DELETING:
                self.write(lambda tx: instances.remove(tx, instance, stimulus="test", reason="a test wants it"))
            else:
                self.write(
                    lambda tx, to=state: instances.move(tx, instance, to, stimulus="test", reason="a test wants it")
                )

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(f"{self.web.api_url}{path}", **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.client.post(f"{self.web.api_url}{path}", **more)

    def metrics(self) -> dict[str, float]:
        """Every series of `/metrics`, as written there, with its value."""
        page = self.client.get(f"{self.web.metrics_url}/metrics")
        assert page.status_code == 200
        lines = [line for line in page.text.splitlines() if line and not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def _run(tx: Tx, job: str) -> None:
    held = jobs.job(tx, job)
    assert held is not None
    lease = str(held.lease)
    leases.move_lease(tx, lease, LeaseState.RUNNING, stimulus="started", reason="the agent has it")
    jobs.move_job(tx, job, None, JobState.RUNNING, stimulus="started", reason="the agent has it")


def _finish(tx: Tx, job: str, reason: str | None) -> None:
    outcome = jobs.Outcome(
        state="failed" if reason else "success", failure_reason=reason, exit_code=3 if reason else 0, message="the end"
    )
    held = jobs.job(tx, job)
    assert held is not None
    jobs.finish_job(tx, job, held.epoch, outcome)
    if held.lease is not None:
        leases.move_lease(tx, held.lease, LeaseState.CLEANING, stimulus="ended", reason="its processes have ended")
        leases.move_lease(tx, held.lease, LeaseState.RELEASED, stimulus="clean", reason="the machine is clean")
    jobs.move_job(tx, job, held.epoch, JobState.FINISHED, stimulus="accepted", reason="GitLab has it")


@contextlib.contextmanager
def running(config: pathlib.Path) -> Iterator[World]:
    """The world of a configuration."""
    loaded = load(config, {})
    assert loaded.settings is not None, loaded.lines()
    manager = make_manager(loaded.settings, {})
    assert manager is not None
    manager.heart.beat()
    manager.state = "running"
    meters = Meters(manager.me)
    reloader = Reloader(manager, {}, Overrides())
    web = Web(manager, meters, reloader)
    try:
        web.start()
        web.metrics.measure()
        with httpx.Client(timeout=10) as client:
            yield World(manager=manager, web=web, meters=meters, reloader=reloader, client=client)
    finally:
        web.close()
        manager.close("the test is over", patience_s=1.0)
