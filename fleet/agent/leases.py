"""Leases on this machine: what was promised durably, and what is true of them now.

Rule: `lease.json` is on disk, synced, before the first effect of a job; a lease is started at most once, whoever asks
and however often, because starting holds a lock on the lease's folder until the supervisor has written its first
state. The highest epoch seen commands. Reading says `lost` when the machine was restarted since or the supervisor is
gone.
"""

from __future__ import annotations

import fcntl
import os
import re
import zlib

from . import system
from .errors import Refused
from .home import Home, read_json, settle, write, write_json

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
RESERVE_BYTES = 16 * 1024


class Lease:
    """The folder of one lease."""

    def __init__(self, home: Home, name: str) -> None:
        if not isinstance(name, str) or not NAME.match(name):
            raise Refused("bad_frame", "the lease %r is no name: letters, digits, '.', '_' and '-' only" % (name,))
        self.home = home
        self.name = name
        self.folder = os.path.join(home.jobs, name)
        self.tombstone = os.path.join(home.tombstones, name)
        self.log = os.path.join(self.folder, "log")
        self.state = os.path.join(self.folder, "state.json")
        self.control = os.path.join(self.folder, "control")
        self.wake = os.path.join(self.folder, "wake")
        self.signs = os.path.join(self.folder, "signs")
        self.terminals = os.path.join(self.folder, "terminals")
        self.reserve = os.path.join(self.folder, "reserve")

    @property
    def is_cleaned(self) -> bool:
        """Whether a tombstone stands."""
        return os.path.exists(self.tombstone)

    @property
    def is_known(self) -> bool:
        """Whether the lease was promised durably."""
        return os.path.exists(os.path.join(self.folder, "lease.json"))

    def record(self) -> dict:
        """What was promised: lease, boot_id, epoch, user, cleanup_paths, containers."""
        return read_json(os.path.join(self.folder, "lease.json"))

    def promise(self, epoch: int, job: dict) -> None:
        """Write durably that this lease is about to have effects, and set some room aside for its last words."""
        containers = job.get("containers")
        record = {
            "lease": self.name,
            "boot_id": system.boot_id(),
            "epoch": epoch,
            "user": job.get("user"),
            "cleanup_paths": [] if containers else job.get("cleanup_paths") or [],  # those are inside of containers
            "containers": containers
            and {
                "program": containers.get("program"),
                "host": containers.get("host"),
                "cleanup_paths": job.get("cleanup_paths") or [],
            },
        }
        write(self.reserve, b"\0" * RESERVE_BYTES)
        write_json(os.path.join(self.folder, "lease.json"), record, durable=True)
        settle(self.home.jobs)

    def obey(self, epoch: int) -> None:
        """Refuse an epoch that is older than the highest one seen; remember a higher one."""
        if self.is_cleaned:
            raise Refused("cleaned", "lease %s was cleaned on this machine" % self.name)
        record = self.record()
        if not record:
            raise Refused("unknown_lease", "lease %s is not known on this machine" % self.name)
        if epoch < record["epoch"]:
            raise Refused(
                "stale_epoch", "epoch %d of lease %s is over: %d commands" % (epoch, self.name, record["epoch"])
            )
        self.raise_epoch(record, epoch)

    def raise_epoch(self, record: dict, epoch: int) -> None:
        """Remember the highest epoch."""
        if epoch > record["epoch"]:
            record["epoch"] = epoch
            write_json(os.path.join(self.folder, "lease.json"), record, durable=True)

    def lock(self, *, make: bool) -> int | None:
        """An open, locked descriptor of the lease's folder; None when there is no folder."""
        while True:
            if make:
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
            try:
                number = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if make:
                    continue
                return None
            fcntl.flock(number, fcntl.LOCK_EX)
            if _is_same(number, self.folder):
                return number
            os.close(number)  # cleaned while we waited for the lock

    def view(self, *, starting: bool | None = None) -> View:
        """What is true of the lease now; `starting`: whether somebody is starting it, if the caller knows."""
        return View(self, starting)


class View:
    """One look at a lease: its state, stage and result as they are now."""

    def __init__(self, lease: Lease, starting: bool | None) -> None:
        self._starting = starting
        record = lease.record()
        known = read_json(lease.state)
        self.epoch = record.get("epoch", 0)
        self.pid = known.get("pid", 0)
        self.started = known.get("started", 0)
        self.stage = known.get("stage")
        self.result = known.get("result")
        self.log_bytes = known.get("log_bytes", 0)
        self.crc32 = known.get("crc32", 0)
        self.state = self._state(lease, record, known)
        if self.state == "lost":
            self._lose(lease, record)
        elif self.state != "exited":
            self.log_bytes = size_of(lease.log)

    def _state(self, lease: Lease, record: dict, known: dict) -> str:
        if not record:
            return "cleaned" if lease.is_cleaned else "unknown"
        if record.get("boot_id") != system.boot_id():
            return "lost"
        if not known:  # no effect was made yet: somebody is about to, or was killed and may be asked again
            starting = is_locked(lease.folder) if self._starting is None else self._starting
            return "running" if starting else "unknown"
        if known.get("state") == "exited":
            return "exited"
        if not system.is_alive(self.pid, self.started):
            again = read_json(lease.state)  # it may have ended in order between the two looks
            if again.get("state") != "exited":
                return "lost"
            self.result, self.log_bytes, self.crc32 = again["result"], again["log_bytes"], again["crc32"]
            self.stage = again.get("stage")
            return "exited"
        return "running"

    def _lose(self, lease: Lease, record: dict) -> None:
        rebooted = record.get("boot_id") != system.boot_id()
        message = "the machine was restarted while the job ran" if rebooted else "the job's supervisor died"
        self.result = {
            "outcome": "lost",
            "reason": "runner_system_failure",
            "exit_code": 0,
            "message": message,
            "stage": self.stage,
        }
        self.log_bytes = size_of(lease.log)


def all_leases(home: Home) -> list:
    """Every lease that has a folder."""
    try:
        names = sorted(os.listdir(home.jobs))
    except OSError:
        return []
    return [Lease(home, name) for name in names if NAME.match(name)]


def size_of(path: str) -> int:
    """The size of a file; 0 without one."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def checksum(path: str) -> int:
    """CRC-32 of a file."""
    total = 0
    try:
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                total = zlib.crc32(piece, total)
    except OSError:
        return total
    return total


def is_locked(folder: str) -> bool:
    """Whether somebody is starting or cleaning the lease right now."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def _is_same(number: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(number)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)
