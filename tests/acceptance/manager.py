"""A real `fleetctl up` process for tests: written configuration, start, kill, stop, and what it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from fleet.places.local.provider import LocalProvider
from fleet.sdk import MachineState, ProviderSetting

POOL = """
  [runners.autoscaler]
  plugin = "local"
  max_instances = {machines}
  capacity_per_instance = {capacity}
  update_interval_when_expecting = "500ms"
  {pool_keys}
  [[runners.autoscaler.policy]]
  idle_count = {idle}
  idle_time = "{idle_time}"
"""


def wait_until(true: Callable[[], Any], timeout: float = 20.0, what: str = "it") -> Any:
    """Poll until `true()` is truthy and return that; AssertionError after `timeout` seconds."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {timeout} s")


class Manager:
    """One manager with its own directory; the process may be killed and started again."""

    def __init__(
        self,
        directory: pathlib.Path,
        gitlab: Any,
        *,
        executor: str = "instance",
        machines: int = 2,
        capacity: int = 1,
        idle: int = 0,
        idle_time: str = "30s",
        concurrent: int = 50,
        request_concurrency: int = 10,
        pool: str | None = None,
        pool_keys: str = "",
        runner_keys: str = "",
        docker_keys: str = "",
        fleet_keys: str = "",
        top: str = "",
        database: str | None = None,
        runner: dict[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.gitlab = gitlab
        self.runner = runner or gitlab.create_runner(description="acceptance")
        self.config = directory / "fleet.toml"
        self.state = directory / "state"
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.environment: dict[str, str] = {}
        self.arguments: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        if pool is None:
            pool = POOL.format(
                machines=machines, capacity=capacity, idle=idle, idle_time=idle_time, pool_keys=pool_keys
            )
        docker = f"  [runners.docker]\n{docker_keys}" if docker_keys else ""
        line = f'database = "{database}"' if database else ""
        self.write(
            f"""
concurrent = {concurrent}
check_interval = 1
log_format = "json"
{top}
[fleet]
state_dir = "{self.state}"
api_listen = "127.0.0.1:0"
reserve_free_bytes = 0
{line}
{fleet_keys}
[[runners]]
name = "acceptance"
url = "{gitlab.url}"
id = {self.runner["id"]}
token = "{self.runner["token"]}"
executor = "{executor}"
request_concurrency = {request_concurrency}
{runner_keys}
{docker}
{pool}
"""
        )

    def write(self, text: str) -> None:
        """Write the configuration file."""
        self.config.write_text(text)

    def start(self) -> Manager:
        """Start the process; it may take jobs a moment later."""
        assert self.process is None or self.process.poll() is not None
        self.starts += 1
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleet.cli.main", "up", "--config", str(self.config), *self.arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """`kill -9`, and wait for the end of the process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.gitlab.manager_restarted()

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end of the process; its exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send a signal and wait for the end; its exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.send(number)
        return self.wait(timeout)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == name:
                    found.append(entry)
        return found

    def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """Read the SQLite store, whether or not the manager runs."""
        with contextlib.closing(sqlite3.connect(self.state / "fleet.sqlite", timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, arguments)]

    def machines(self) -> list[pathlib.Path]:
        """The directories of the local machines that exist."""
        return [path for path in (self.state / "local" / "machines").glob("*") if (path / "home").is_dir()]

    def clear(self) -> None:
        """End the process and every machine it left, by draining with deletion."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        end_machines(self.state)


def end_machines(state: pathlib.Path) -> None:
    """Delete every local machine below a state directory."""
    if not (state / "local").is_dir():
        return
    setting = ProviderSetting(
        pool="tests", plugin_config={}, placements=({"name": "default"},), state_dir=str(state), store_id="tests"
    )
    provider = LocalProvider(setting)
    try:
        alive = [each.machine_id for each in provider.list() if each.state is not MachineState.GONE]
        provider.delete(alive)
        wait_until(
            lambda: all(each.state is MachineState.GONE for each in provider.list()), 30, "the end of the machines"
        )
    finally:
        provider.close()


@contextlib.contextmanager
def running(*arguments: Any, **keywords: Any) -> Iterator[Manager]:
    """A started manager; its process and machines are ended at the exit."""
    manager = Manager(*arguments, **keywords)
    try:
        yield manager.start()
    finally:
        manager.clear()
