"""The job's log on disk: counts, checks, limits what is stored.

Rule: `size` and `crc32` are of the bytes in the file, which are the bytes of GitLab's trace. Over the limit one
notice is written, outside the limit, and nothing more. A full disk never ends a job: what does not fit is dropped,
counted, and told in one line as soon as there is room again.
"""

from __future__ import annotations

import errno
import os
import zlib

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LogFile:
    """Appends to one file."""

    def __init__(self, path: str, limit_bytes: int | None, limit_notice: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._limit = limit_bytes
        self._notice = limit_notice.encode("utf-8", "replace")
        self._at_line_start = True
        self.size = 0
        self.crc32 = 0
        self.dropped = 0
        self.is_full = False  # the limit is reached

    def write(self, data: bytes) -> None:
        """Store the bytes as far as the limit and the disk allow."""
        if self.is_full or not data:
            return
        if self._limit is not None and self.size + len(data) > self._limit:
            self._store(cut_at_character(data, self._limit - self.size))
            self.is_full = True
            data = self._notice_line()
        self._store(data)

    def finish(self) -> None:
        """Tell what the disk had no room for, if it has room for that."""
        if self.dropped and not self.is_full:
            self._store(b"")

    def close(self) -> None:
        """Nothing more is written."""
        os.close(self._fd)

    def _notice_line(self) -> bytes:
        if not self._notice:
            return b""
        before = b"" if self._at_line_start or self._notice.startswith(b"\n") else b"\n"
        after = b"" if self._notice.endswith(b"\n") else b"\n"
        return before + self._notice + after

    def _store(self, data: bytes) -> None:
        if self.dropped:
            line = self._dropped_line()
            if self._append(line) < len(line):
                self.dropped += len(data)
                return
            self.dropped = 0
        self.dropped += len(data) - self._append(data)

    def _dropped_line(self) -> bytes:
        before = b"" if self._at_line_start else b"\n"
        return before + b"[the machine's disk was full: %d bytes of output are missing here]\n" % self.dropped

    def _append(self, data: bytes) -> int:
        """How many of the bytes were stored."""
        stored = 0
        while stored < len(data):
            try:
                written = os.write(self._fd, data[stored:] if stored else data)
            except OSError as exc:
                if exc.errno not in NO_ROOM:
                    raise
                break
            self._count(data[stored : stored + written])
            stored += written
        return stored

    def _count(self, data: bytes) -> None:
        if not data:
            return
        self.size += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        self._at_line_start = data.endswith(b"\n")


def cut_at_character(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes, without the beginning of a character at the end."""
    end = max(0, min(limit, len(data)))
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end]
