"""The spool: one append-only file per job with its trace from byte 0, until GitLab has accepted the final update.

The follower appends, the reporter reads; neither waits for the other. The file's length is the truth about how far a
trace was relayed, so a manager that was killed goes on from there. `sync` makes it durable before the agent is told
that it may forget.
"""

from __future__ import annotations

import errno
import os
import pathlib
import threading
import zlib

from fleet.sdk import FleetError

CHUNK = 1 << 20
REMOVED_KEPT = 10_000


class SpoolFull(FleetError):
    """There is no room for more of a trace."""

    slug = "spool_full"


class SpoolGap(FleetError):
    """Bytes were offered that do not join what is there."""

    slug = "spool_gap"


class _File:
    __slots__ = ("crc", "fd", "lock", "size", "synced")

    def __init__(self, path: pathlib.Path, flags: int) -> None:
        self.lock = threading.Lock()
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)  # -1 once it is closed
        self.size = os.fstat(self.fd).st_size
        self.synced = 0
        self.crc: tuple[int, int] = (0, 0)  # of the first n bytes: (n, crc)

    def close(self) -> None:
        """Whoever still holds this finds it empty, and never another file under the same number."""
        with self.lock:
            if self.fd >= 0:
                os.close(self.fd)
            self.fd, self.size = -1, 0


class Spool:
    """All spool files of a manager. Thread-safe."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._files: dict[str, _File] = {}
        self._removed: dict[str, None] = {}  # the last ones, oldest first: a late writer must not begin them again
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _file(self, key: str, flags: int = 0) -> _File | None:
        """The file of a job; None when there is none. Looking never makes one: it may just have been removed."""
        with self._lock:
            file = self._files.get(key)
            if file is None and key in self._removed:
                return None
            if file is None:
                try:
                    file = self._files[key] = _File(self.directory / f"{key}.trace", flags)
                except FileNotFoundError:
                    return None
            return file

    def path(self, key: str) -> pathlib.Path:
        """The file of a job's trace; it may not be there yet, or not any more."""
        return self.directory / f"{key}.trace"

    def size(self, key: str) -> int:
        """How many bytes of the trace are here."""
        file = self._file(key)
        return 0 if file is None else file.size

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Add `data`, which begins at `offset` of the trace; what is here already is skipped. Returns the new size.

        Nothing is kept of a trace that was removed.

        Raises:
            SpoolFull: the disk has no room; the file is as it was.
            SpoolGap: bytes between the file's end and `offset` are missing.
        """
        file = self._file(key, os.O_CREAT)
        if file is None and key not in self._removed:
            raise SpoolFull(f"the directory of traces {self.directory} is gone; make it again, with mode 0700")
        if file is None:
            return 0
        with file.lock:
            if file.fd < 0:
                return 0
            if offset > file.size:
                raise SpoolGap(f"the spool of job {key} ends at {file.size}, and {offset} was offered next")
            new = memoryview(data)[file.size - offset :]
            at = file.size
            try:
                while new:
                    written = os.pwrite(file.fd, new, at)
                    at += written
                    new = new[written:]
            except OSError as exc:
                os.ftruncate(file.fd, file.size)
                if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise SpoolFull(
                        f"no room for traces in {self.directory}: {exc.strerror}; free some space there, "
                        "nothing is lost and the manager goes on by itself"
                    ) from exc
                raise
            file.size = at
            return at

    def read(self, key: str, start: int, count: int) -> bytes:
        """Up to `count` bytes of the trace from `start`."""
        file = self._file(key)
        if file is None:
            return b""
        with file.lock:
            return b"" if file.fd < 0 else os.pread(file.fd, count, start)

    def crc(self, key: str, end: int) -> int:
        """CRC-32 of the first `end` bytes."""
        file = self._file(key)
        if file is None:
            return 0
        with file.lock:
            if file.fd < 0:
                return 0
            done, crc = file.crc
            if done > end:
                done, crc = 0, 0
            while done < end:
                data = os.pread(file.fd, min(CHUNK, end - done), done)
                if not data:
                    break
                crc = zlib.crc32(data, crc)
                done += len(data)
            file.crc = (done, crc)
            return crc

    def sync(self, key: str) -> int:
        """Make everything that was appended durable; returns how much that is."""
        file = self._file(key)
        if file is None:
            return 0
        with file.lock:
            if file.synced < file.size:
                os.fdatasync(file.fd)
                file.synced = file.size
            return file.size

    def begin_again(self, key: str) -> None:
        """Throw away what is here: the job starts anew elsewhere."""
        self.let_go(key)
        (self.directory / f"{key}.trace").unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """GitLab has it all, or wants none of it: forget the file for good."""
        with self._lock:
            self._removed[key] = None
            if len(self._removed) > REMOVED_KEPT:
                del self._removed[next(iter(self._removed))]
            file = self._files.pop(key, None)
            if file is not None:
                file.close()
            (self.directory / f"{key}.trace").unlink(missing_ok=True)

    def let_go(self, key: str) -> None:
        """Close the file without removing it: another manager goes on with the job."""
        with self._lock:
            file = self._files.pop(key, None)
            if file is not None:
                file.close()

    def leftovers(self, open_keys: set[str]) -> list[str]:
        """Files of jobs that are not open any more; a file in use is none, whatever the rows said a moment ago."""
        return [
            path.stem
            for path in self.directory.glob("*.trace")
            if path.stem not in open_keys and path.stem not in self._files
        ]

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
