"""Sends a job's log and end to whoever follows it.

Rule: nothing of the log is kept in memory: a frame is read from the file when the channel can take it, so a slow
manager costs nothing. `exit` comes after the last byte. One descriptor per followed job tells when its supervisor
ends.
"""

from __future__ import annotations

import os

from . import leases, signing, system
from .frames import DATA_LIMIT, encode
from .leases import Lease


class Follow:
    """One lease that is followed on this channel."""

    def __init__(self, lease: Lease, offset: int) -> None:
        self.lease = lease
        self.offset = offset
        self._log = None
        self._size = 0
        self._stamp = None
        self._said = None
        self._view = None
        self._asked = set()
        self._frames = []  # small ones that go before data: state, sign
        self.is_over = False
        self.watch = None
        self.refresh()
        if self.watch is not None:  # it may have ended before it was watched
            self.refresh(force=True)

    @property
    def has_something(self) -> bool:
        """Whether there is a frame to send."""
        return not self.is_over and bool(self._frames or self.offset < self._size or self._view.result is not None)

    def refresh(self, *, force: bool = False) -> None:
        """Look at the lease again."""
        stamp = _stamp_of(self.lease.state)
        if force or stamp is None or stamp != self._stamp:
            self._stamp = stamp
            self._view = self.lease.view()
            if self._view.state == "running" and self.watch is None and self._view.pid:
                self.watch = system.watch(self._view.pid)
            said = (self._view.state, self._view.stage)
            if said != self._said:
                self._said = said
                state = {"type": "state", "lease": self.lease.name, "state": said[0], "stage": said[1]}
                self._frames.append(encode(state))
        for number, what in signing.questions(self.lease) if os.path.isdir(self.lease.signs) else []:
            if number not in self._asked:
                self._asked.add(number)
                self._frames.append(encode({"type": "sign", "lease": self.lease.name, "sign": number, "what": what}))
        self._size = leases.size_of(self.lease.log)

    def frame(self) -> bytes | None:
        """The next frame, or None when there is none now."""
        if self._frames:
            return self._frames.pop(0)
        if self.offset < self._size:
            return self._data()
        if self._view.result is None or self.is_over:
            return None
        if self._view.state == "exited" and self.offset < self._view.log_bytes:
            return None
        self.is_over = True
        crc32 = self._view.crc32 if self._view.state == "exited" else leases.checksum(self.lease.log)
        return encode(
            {
                "type": "exit",
                "lease": self.lease.name,
                "result": self._view.result,
                "log_bytes": self._view.log_bytes,
                "crc32": crc32,
            }
        )

    def _data(self) -> bytes | None:
        if self._log is None:
            self._log = os.open(self.lease.log, os.O_RDONLY | os.O_CLOEXEC)
        data = os.pread(self._log, min(DATA_LIMIT, self._size - self.offset), self.offset)
        if not data:
            self._size = self.offset
            return None
        head = {"type": "data", "lease": self.lease.name, "offset": self.offset}
        self.offset += len(data)
        return encode(head, data)

    def close(self) -> None:
        """Give back what is open."""
        for number in (self._log, self.watch):
            if number is not None:
                os.close(number)
        self._log = self.watch = None


def _stamp_of(path: str) -> tuple | None:
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size
