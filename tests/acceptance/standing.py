"""A pretend GitLab and a manager with warm machines that the tests of one file share: a test then takes a second.

Each test ends with `settled`: no job is open, no slot is held, and the protocol was kept.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.jobs import JobView
from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from fleet.demo.state import Knobs
from tests.acceptance.manager import Manager, wait_until

STAMPED = re.compile(rb"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[OE][ +]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that has ended: what GitLab knows of it, and its log by lines."""

    view: JobView
    trace: bytes
    lines: list[str]

    @property
    def end(self) -> tuple[str, str, int]:
        return self.view.state, self.view.failure_reason, self.view.exit_code

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def has(self, words: str) -> bool:
        """Whether some line of the log holds these words."""
        return any(words in line for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Both, running."""

    gitlab: Any
    manager: Manager

    def enqueue(self, *script: str, **payload: Any) -> int:
        return self.gitlab.enqueue(make_job(script=script, **payload))

    def ended(self, job: int, *, timeout: float = 60.0) -> Ended:
        """Wait for the end of a job, and for its slot to be free again."""
        (view,) = self.gitlab.wait_for(job, timeout=timeout)
        self.settled()
        return ended_of(self.gitlab, view)

    def run(self, *script: str, within: float = 60.0, **payload: Any) -> Ended:
        """Queue a job and wait for its end."""
        return self.ended(self.enqueue(*script, **payload), timeout=within)

    def settled(self) -> None:
        settled(self.gitlab, self.manager)


def ended_of(gitlab: Any, view: JobView) -> Ended:
    trace = gitlab.trace(view.id)
    return Ended(view=view, trace=trace, lines=output_lines(trace))


def settled(gitlab: Any, manager: Manager, *, timeout: float = 60.0) -> None:
    """No job is open, no slot is held, nothing secret is kept, no rule of the protocol was broken."""
    open_jobs = "SELECT job_key FROM jobs WHERE state NOT IN ('finished', 'abandoned')"
    held = "SELECT lease_id FROM leases WHERE state NOT IN ('released', 'lost')"
    wait_until(lambda: not manager.rows(open_jobs), timeout, "the end of every job")
    wait_until(lambda: not manager.rows(held), timeout, "the release of every slot")
    assert manager.rows("SELECT job_key FROM jobs WHERE length(token) > 0 OR length(payload) > 0") == []
    spools = manager.state / "spool"
    wait_until(lambda: not list(spools.glob("*.trace")), timeout, "the end of every spool")
    assert gitlab.violations() == []


@contextlib.contextmanager
def standing(
    directory: pathlib.Path, *, knobs: Knobs | None = None, warm: int = 2, **keywords: Any
) -> Iterator[Standing]:
    """A server and a started manager with `warm` machines that wait for jobs."""
    with PretendGitLab(threads=96, knobs=knobs or Knobs(update_interval_s=1)) as gitlab:
        manager = Manager(directory, gitlab, **{"machines": warm, "idle": warm, "idle_time": "10m"} | keywords)
        manager.start()
        try:
            wait_until(lambda: manager.events("manager_started"), 60, "the start")
            ready = "SELECT instance_id FROM instances WHERE state = 'ready'"
            wait_until(lambda: len(manager.rows(ready)) >= warm, 60, f"{warm} machines")
            yield Standing(gitlab=gitlab, manager=manager)
            assert gitlab.violations() == []
        finally:
            manager.clear()
