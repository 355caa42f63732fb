"""The stored log of one job: appended at the end only, with its running CRC-32.

Rule: bytes once received are kept for comparison even after the store "lost" them (a refused
final update, damage done on purpose), so that a client which tells another story the second
time is found out. Who may append, and how often, is decided elsewhere.
"""

from __future__ import annotations

import zlib


class Trace:
    """Bytes in order; not thread safe, the caller holds the lock."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.damaged = False
        self._crc = 0
        self._earlier = b""

    @property
    def size(self) -> int:
        """Bytes stored now."""
        return len(self.data)

    @property
    def lost_some(self) -> bool:
        """Whether more was received once than is stored now."""
        return len(self._earlier) > len(self.data)

    @property
    def checksum(self) -> str:
        """CRC-32 as GitLab writes it; wrong on purpose while the store is damaged."""
        return f"crc32:{self._crc ^ (1 if self.damaged else 0):08x}"

    def append(self, chunk: bytes) -> None:
        """Add at the end; the cost does not grow with what is stored."""
        self.data += chunk
        self._crc = zlib.crc32(chunk, self._crc)

    def first_difference(self, start: int, chunk: bytes) -> int | None:
        """Offset of the first byte that differs from what was received before for the same range."""
        for known in (self.data, self._earlier):
            end = min(start + len(chunk), len(known))
            if end > start and known[start:end] != chunk[: end - start]:
                pairs = zip(known[start:end], chunk, strict=False)
                return start + next(at for at, (old, new) in enumerate(pairs) if old != new)
        return None

    def forget_from(self, size: int) -> None:
        """Lose everything from `size` on, as after a refused final update (0) or a lost store."""
        if len(self.data) > len(self._earlier):
            self._earlier = bytes(self.data)
        del self.data[size:]
        self._crc = zlib.crc32(self.data)
        self.damaged = False

    def allow_rewrite(self) -> None:
        """Compare no more with what was lost: for a client that has lost the bytes as well."""
        self._earlier = b""
