"""Starts the supervisor of a lease, once.

Rule: the lock on the lease's folder is held from before the promise until the supervisor has written its first state,
by the supervisor itself, too. So whoever gets the lock and finds no state knows that nothing of the job has happened,
and may start it: a `serve` that is killed in the middle of a `start` costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import sys

from . import identity, system
from .cleaning import remove_folder
from .errors import Refused
from .home import Home
from .jobfile import parse
from .leases import Lease
from .supervise import Supervisor

READY_WITHIN_MS = 20000
DEFAULT_JOB_S = 7200
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def start(lease: Lease, epoch: int, remaining_s: float, body: bytes) -> str:
    """Make the lease run, or tell its state when it is known already."""
    if lease.is_cleaned:
        return "cleaned"
    lock = lease.lock(make=True)
    try:
        if lease.is_cleaned:  # while we waited for the lock
            remove_folder(lease)
            return "cleaned"
        record = lease.record()
        if record:
            lease.raise_epoch(record, epoch)
            state = lease.view(starting=False).state
            if state != "unknown":
                return state
        _begin(lease, epoch, remaining_s, body, lock, is_new=not record)
        return "running"
    finally:
        os.close(lock)


def _begin(lease: Lease, epoch: int, remaining_s: float, body: bytes, lock: int, *, is_new: bool) -> None:
    try:
        job = parse(body)
        who = identity.of(job["user"])
        _find_shell(job, who)
        if is_new:
            lease.promise(epoch, job)
        _launch(lease, job, who, remaining_s, lock)
    except Refused:
        remove_folder(lease)
        raise
    except OSError as exc:
        remove_folder(lease)
        slug = "disk_full" if exc.errno in NO_ROOM else "failed"
        raise Refused(slug, "the job could not be started: %s" % (exc.strerror or exc)) from exc


def _find_shell(job: dict, who: identity.Identity) -> None:
    path = (job["environment"] or {}).get("PATH") or who.environment()["PATH"]
    if system.find_program(job["shell"], path) is None:
        raise Refused("no_shell", "there is no %s on this machine (PATH %s)" % (job["shell"], path))


def _launch(lease: Lease, job: dict, who: identity.Identity, remaining_s: float, lock: int) -> None:
    """Detach the supervisor and wait until it has written its first state."""
    reading, writing = os.pipe()

    def supervise() -> None:
        try:
            supervisor = Supervisor(lease, job, who, remaining_s)
        except BaseException as exc:
            _say(writing, b"%d %s" % (getattr(exc, "errno", None) or 0, str(exc).encode("utf-8", "replace")[:2000]))
            raise
        _say(writing, b"ok")
        os.close(lock)
        supervisor.run()

    try:
        system.detach(supervise, keep=(lock, writing))
    finally:
        os.close(writing)
    try:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        said = os.read(reading, 4096) if poll.poll(READY_WITHIN_MS) else b"0 it did not begin in time"
    finally:
        os.close(reading)
    if said != b"ok":
        number, _, message = said.decode("utf-8", "replace").partition(" ")
        raise OSError(int(number or 0), message or "the supervisor ended before it began")


def _say(number: int, text: bytes) -> None:
    """Tell `serve` how it went; a `serve` that was killed meanwhile is told by the state on disk."""
    with contextlib.suppress(BrokenPipeError):
        os.write(number, text)
    os.close(number)


def supervise_here(home: Home, name: str, body: bytes) -> int:
    """Run a job in this process and print its result: for systems where `serve` cannot fork, and for a person."""
    home.make()
    lease = Lease(home, name)
    lock = lease.lock(make=True)
    try:
        job = parse(body)
        who = identity.of(job["user"])
        _find_shell(job, who)
        lease.promise(0, job)
        supervisor = Supervisor(lease, job, who, float(job.get("timeout_s") or DEFAULT_JOB_S))
    except Refused as exc:
        remove_folder(lease)
        sys.stderr.write("fleet-agent: %s\n" % exc)
        return 2
    finally:
        os.close(lock)
    supervisor.run()
    result = lease.view().result
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if result["outcome"] == "success" else 1
