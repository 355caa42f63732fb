"""How the manager is: may it take jobs, and why not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.runtime.app import Manager

STATES = {
    "starting": "the manager is starting",
    "draining": "the manager takes no more jobs and waits for those that run",
    "aborting": "the manager aborts its jobs and ends",
    "stopped": "the manager has stopped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why the manager takes no jobs just now.

    Attributes:
        slug: for metrics and scripts.
        message: for people.
    """

    slug: str
    message: str


def readiness(manager: Manager) -> list[Reason]:
    """Every reason why the manager takes no jobs just now; none when it does."""
    found = []
    if manager.state != "running":
        found.append(Reason(slug=manager.state, message=STATES.get(manager.state, f"it is {manager.state}")))
    failing = manager.heart.failing_since
    if failing is not None:
        seconds = round(time.monotonic() - failing)
        found.append(Reason(slug="store", message=f"the database has taken no write for {seconds} s"))
    elif manager.state == "running" and not manager.heart.may_speak():
        found.append(Reason(slug="claims", message="its claims have run out: another manager may have taken over"))
    full = manager.disks.problem()
    if full is not None:
        found.append(Reason(slug="disk", message=full))
    return found
