"""When a supervisor tells the `serve` processes that there is something to send.

Rule: at once after a pause of 1.5 s, for the first output of a step, and for a change of state; else when 64 KiB wait
or the oldest byte is 1.5 s old. So a log is at most that late, and a busy job wakes nobody for each line.
"""

from __future__ import annotations

import time

from .logfile import LogFile
from .wakes import Doors

LATE_S = 1.5
MUCH_BYTES = 64 * 1024
NEVER = float("inf")


class Teller:
    """Counts what has not been told yet."""

    def __init__(self, doors: Doors, lease: str, log: LogFile) -> None:
        self._doors = doors
        self._lease = lease
        self._log = log
        self._told_bytes = 0
        self._told_at = -NEVER
        self._oldest_at = NEVER
        self._is_urgent = False

    def hurry(self) -> None:
        """The next output is told at once."""
        self._is_urgent = True

    def log_grew(self) -> float:
        """Tell what is due; gives the instant at which to come again."""
        now = time.monotonic()
        waiting = self._log.size - self._told_bytes
        if not waiting:
            return NEVER
        self._oldest_at = min(self._oldest_at, now)
        due_at = self._oldest_at + LATE_S
        if self._is_urgent or waiting >= MUCH_BYTES or now >= min(due_at, self._told_at + LATE_S):
            self.tell()
            return NEVER
        return due_at

    def tell(self) -> None:
        """Tell now."""
        self._is_urgent = False
        self._told_bytes = self._log.size
        self._told_at = time.monotonic()
        self._oldest_at = NEVER
        self._doors.knock(self._lease)
