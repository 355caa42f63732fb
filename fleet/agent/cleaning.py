"""Removes everything of a lease from the machine, and says so for good.

Rule: processes first, then its containers, then the job's files as the job's user, then the tombstone, then the
lease's folder. Each step may be done again, so a clean that was cut short is finished by the next one; and a lease that
never came here gets its tombstone too, so that a late `start` is refused.
"""

from __future__ import annotations

import os
import signal
import time

from . import identity, jobfiles, leftovers, system
from .cgroup import JobGroup
from .errors import Refused
from .home import discard, read_json, settle
from .leases import Lease

WITHIN_S = 15.0
FILES_WITHIN_S = 300.0
CONTAINERS_WITHIN_S = 120.0


def clean(lease: Lease) -> None:
    """When this returns, nothing of the lease is left but its tombstone."""
    lock = lease.lock(make=True)
    try:
        record = lease.record()
        state = read_json(lease.state)
        if record and not state.get("is_clean"):
            _end_job(lease, state)
            _remove_containers(lease, record)
        if record and state.get("state") != "exited":
            _remove_files(record)
        JobGroup(lease.name, is_root=os.geteuid() == 0).remove(WITHIN_S)
        discard(lease.log)  # first of all what may be large: the tombstone needs room
        _bury(lease)
        remove_folder(lease)
    finally:
        os.close(lock)


def _end_job(lease: Lease, state: dict) -> None:
    """End what runs, the supervisor last: as long as it is there, stopped, every process of the job is below it."""
    pid, started = state.get("pid", 0), state.get("started", 0)
    give_up_at = time.monotonic() + WITHIN_S
    if system.is_alive(pid, started):
        system.send(pid, signal.SIGSTOP)
        found = system.descendants(pid)
        while found and time.monotonic() < give_up_at:
            for below in found:
                system.send(below, signal.SIGKILL)
            time.sleep(0.002)
            found = system.descendants(pid)
        system.send(pid, signal.SIGKILL)
    while system.is_alive(pid, started) and time.monotonic() < give_up_at:
        time.sleep(0.002)
    group = JobGroup(lease.name, is_root=os.geteuid() == 0)
    if system.is_alive(pid, started) or not leftovers.end_orphans(lease.name, group, WITHIN_S):
        raise Refused("failed", "some processes of lease %s cannot be ended: the machine is not clean" % lease.name)


def _remove_containers(lease: Lease, record: dict) -> None:
    """Remove what the job made in the container engine."""
    made_in = record.get("containers")
    if not made_in:
        return
    from .docker.engine import Engine  # noqa: PLC0415  most agents never need it
    from .docker.sweeping import remove_files, sweep  # noqa: PLC0415  as above

    engine = Engine(made_in.get("program") or "docker", made_in.get("host"), lease.name)
    problem = sweep(engine, CONTAINERS_WITHIN_S)
    if not problem and not remove_files(engine, lease.folder, made_in.get("cleanup_paths") or []):
        problem = "files of the job stay in a volume"
    if problem:
        message = "the containers of lease %s cannot be removed: %s" % (lease.name, problem)
        raise Refused("failed", message + ": the machine is not clean")


def _remove_files(record: dict) -> None:
    """Remove the job's files in a child that has become the job's user."""
    paths = record.get("cleanup_paths") or []
    try:
        who = identity.of(record.get("user"))
    except Refused:  # the user is gone, or the agent is not root any more: nothing can be done in its name
        return
    if not paths:
        return
    pid = os.fork()
    if pid:
        _wait(pid, FILES_WITHIN_S)
        return
    try:
        who.become()
        jobfiles.remove_all(paths)
    finally:
        os._exit(0)


def _wait(pid: int, within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > give_up_at:
            system.send(pid, signal.SIGKILL)
        time.sleep(0.002)


def _bury(lease: Lease) -> None:
    number = os.open(lease.tombstone, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(number)
    settle(lease.home.tombstones)


def remove_folder(lease: Lease) -> None:
    """Remove the lease's folder, its promise last."""
    for name in sorted(_names(lease.folder), key=lambda name: name == "lease.json"):
        jobfiles.remove(os.path.join(lease.folder, name))
    try:
        os.rmdir(lease.folder)
    except FileNotFoundError:
        return


def _names(folder: str) -> list:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
