"""Says now and then how far a transfer is (TRANSFER_METER_FREQUENCY).

Rule: a meter never delays a transfer; it speaks only when bytes have just moved and its time has come.
"""

from __future__ import annotations

import time

from .speech import say, size


class Meter:
    """Counts bytes; `every_s` 0 counts in silence."""

    def __init__(self, verb: str, every_s: float) -> None:
        self.count = 0
        self._verb = verb
        self._every_s = every_s
        self._began_at = time.monotonic()
        self._next_at = self._began_at + every_s

    def add(self, count: int) -> None:
        """So many bytes more have moved."""
        self.count += count
        if not self._every_s:
            return
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + self._every_s
            say(self.line())

    def line(self) -> str:
        """How much has moved, and how fast on average."""
        took_s = max(time.monotonic() - self._began_at, 0.001)
        return "%s %s (%s/s)" % (self._verb, size(self.count), size(self.count / took_s))
