"""Processes of this host by what /proc says of them: who descends from whom, and who carries a machine's mark.

Used by a local machine to end everything it started, and by the provider when a machine's own process was killed and
what it had started lives on. Linux only, as the rest of this place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MARK = "FLEET_MACHINE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One line of /proc. `started` is in clock ticks since boot: pid and started together are never reused."""

    pid: int
    parent: int
    started: int
    is_zombie: bool


def process(pid: int) -> Process | None:
    """The process with this pid, None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    # The name in parentheses may hold anything, also spaces and parentheses.
    fields = stat[stat.rfind(b")") + 2 :].split()
    return Process(pid=pid, parent=int(fields[1]), started=int(fields[19]), is_zombie=fields[0] in {b"Z", b"X"})


def processes() -> Iterator[Process]:
    """All processes of this host."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := process(int(name))) is not None:
            yield found


def descendants(roots: set[int]) -> set[int]:
    """Pids of all living processes below `roots`, without them."""
    children: dict[int, list[Process]] = {}
    for each in processes():
        children.setdefault(each.parent, []).append(each)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child.pid not in found and child.pid not in roots:
                found.add(child.pid)
                todo.append(child.pid)
    return {pid for pid in found if not _is_zombie(pid)}


def marked(machine_id: str, folder: str) -> set[int]:
    """Pids of processes that carry the machine's mark in their environment or stand in its folder, and of their kin."""
    mark = f"{MARK}={machine_id}".encode()
    found: set[int] = set()
    for each in processes():
        if (
            not each.is_zombie
            and each.pid != os.getpid()
            and (_carries(each.pid, mark) or _stands_in(each.pid, folder))
        ):
            found.add(each.pid)
    return found | descendants(found) if found else found


def end_all(find: Callable[[], set[int]], *, within_s: float) -> bool:
    """Kill what `find` returns until it returns nothing: a process may start another one meanwhile."""
    by = time.monotonic() + within_s
    while pids := find():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > by:
            return False
        time.sleep(0.005)
    return True


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def _stands_in(pid: int, folder: str) -> bool:
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
    return cwd == folder or cwd.startswith(folder + "/")


def _is_zombie(pid: int) -> bool:
    found = process(pid)
    return found is None or found.is_zombie
