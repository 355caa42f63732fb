"""A machine for the agent: a home of its own, the packed agent, channels that are hung up at the end."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.agent import cgroup, home, leases, system

from . import channel


class Machine:
    """A home on this machine, with as many channels as a test wants."""

    def __init__(self, folder: pathlib.Path, agent: pathlib.Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.work = folder / "work"
        self.agent = agent
        self._channels: list[channel.Channel] = []
        self._leases = 0

    @property
    def folder(self) -> pathlib.Path:
        """The agent's folder."""
        return self.home / ".fleet-agent"

    def connect(self, **more: Any) -> Any:
        """A new channel."""
        made = channel.Channel(self.agent, self.home, **more)
        self._channels.append(made)
        return made

    def job(self, *scripts: str, **fields: Any) -> dict[str, Any]:
        """A job file with one step per script."""
        job = {
            "format": 1,
            "lease": "x",
            "job_id": 1,
            "user": None,
            "shell": "bash",
            "cwd": str(self.work),
            "environment": {"LANG": "C.UTF-8"},
            "abort_grace_s": 0.3,
            "trace": {"limit_bytes": 1 << 22, "limit_notice": "full", "timestamps": False, "sections": False},
            "stages": [stage(f"step_{n}", "step", text) for n, text in enumerate(scripts, 1)],
        }
        job.update(fields)
        return job

    def lease(self) -> str:
        """A new name."""
        self._leases += 1
        return f"lease-{os.getpid()}-{id(self)}-{self._leases}"

    def start(self, on: Any, job: dict[str, Any], *, epoch: int = 1, remaining_s: float = 600, **fields: Any) -> str:
        """Start a job and follow it."""
        lease = fields.pop("lease", None) or self.lease()
        reply = on.ask("start", json.dumps(job).encode(), lease=lease, epoch=epoch, remaining_s=remaining_s, **fields)
        assert reply["ok"], reply
        assert on.ask("follow", lease=lease, epoch=epoch, offset=0)["ok"]
        return lease

    def run(self, job: dict[str, Any], **fields: Any) -> tuple[dict[str, Any], str]:
        """Run a job to its end: its result and its log."""
        on = self._channels[0] if self._channels else self.connect()
        lease = self.start(on, job, **fields)
        result = on.exit_of(lease)["result"]
        return result, on.log(lease).decode()

    def close(self) -> None:
        """Hang up, and end every job that a test left behind."""
        for one in self._channels:
            if one.process.returncode is None:
                one.close()
        for lease in leases.all_leases(home.Home(str(self.folder))):
            view = lease.view()
            if view.state == "running":
                for pid in [*system.descendants(view.pid), view.pid]:
                    system.send(pid, 9)
            cgroup.JobGroup(lease.name, is_root=os.geteuid() == 0).remove(5)


def stage(name: str, kind: str, script: str, **fields: Any) -> dict[str, Any]:
    """One stage of a job file."""
    return {"name": name, "kind": kind, "script": script, "exit_reason": "script_failure", **fields}


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return channel.pack(tmp_path_factory.mktemp("agent") / "agent.pyz")


@pytest.fixture
def machine(tmp_path: pathlib.Path, agent: pathlib.Path) -> Iterator[Machine]:
    made = Machine(tmp_path, agent)
    yield made
    made.close()
