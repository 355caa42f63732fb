"""Locks on files: one manager per state directory, one per SQLite database."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib

from fleet.sdk import FleetError


class InUse(FleetError):
    """Another manager runs on the same files."""

    slug = "in_use"


class CannotLock(FleetError):
    """The file that says that we run cannot be made."""

    slug = "cannot_lock"


class Locks:
    """Holds locks until `release`, or until the process ends however it ends."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def take(self, path: pathlib.Path, what: str) -> None:
        """Lock `path`.

        Raises:
            InUse: another process has it; the message names it.
            CannotLock: the file cannot be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise CannotLock(
                f"{what} cannot be used: {path}: {exc.strerror}; let fleetctl's user write the directory, "
                "or name another one in [fleet]"
            ) from exc
        try:
            self._lock(fd, what)
        except BaseException:
            os.close(fd)
            raise
        self._held.append(fd)

    def _lock(self, fd: int, what: str) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            pid = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
            raise InUse(
                f"{what} is in use by another manager (process {pid}); stop it, or give this one its own "
                "[fleet] state_dir; several managers share a fleet on PostgreSQL"
            ) from exc
        with contextlib.suppress(OSError):  # the lock is what counts; on a full disk the number stays unwritten
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go of all."""
        for fd in self._held:
            os.close(fd)
        self._held.clear()
