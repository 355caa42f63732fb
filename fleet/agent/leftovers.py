"""Ends what a job left running.

Rule: while the supervisor lives, every process of the job is below it, because orphans are given to it; so walking down
from it finds all, whatever they did to their session, group or environment. When it has died, the control group and the
lease in the environment find them.
"""

from __future__ import annotations

import os
import signal
import time

from . import system
from .cgroup import JobGroup

WITHIN_S = 10.0


def end_descendants(within_s: float = WITHIN_S) -> bool:
    """As the supervisor: end everything below this process; False when something outlived that."""
    give_up_at = time.monotonic() + within_s
    while True:
        reap()
        if not system.has_children(os.getpid()):
            return True
        found = system.descendants(os.getpid())
        for pid in found:
            system.send(pid, signal.SIGKILL)
        if not found and not reap():
            return True
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.002)


def reap() -> bool:
    """Take note of children that have ended; whether there are any left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return False
    return True


def end_orphans(lease: str, group: JobGroup, within_s: float = WITHIN_S) -> bool:
    """As anybody: end what carries the lease, after its supervisor has died; False when something outlived that."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = set(system.processes_with("FLEET_LEASE", lease)) | set(group.members())
        found |= {below for pid in found for below in system.descendants(pid)}
        found.discard(os.getpid())
        for pid in found:
            system.send(pid, signal.SIGKILL)
        if not found:
            return group.remove(max(0.1, give_up_at - time.monotonic()))
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)
