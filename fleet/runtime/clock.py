"""The one doorway to time.

`now()` is the manager's own time: the wall clock at the start, carried on by the monotonic clock. A wall clock that is
set by an hour, or a host that sleeps for one, therefore neither ends a deadline nor an idle timer: both count the
seconds that the manager lived through. `wall()` is what the host's clock shows, for what others wrote (a token's
expiry) and for people. After a restart the manager's own time starts at the wall clock again, but never before what the
store has already seen.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from threading import Lock

STEP = timedelta(seconds=30)


class Clock:
    """The manager's time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._start = datetime.now(UTC)
        self._mono = time.monotonic()

    def now(self) -> datetime:
        """The manager's own time; it only ever goes forward, a second a second."""
        return self._start + timedelta(seconds=time.monotonic() - self._mono)

    def wall(self) -> datetime:
        """What the host's clock shows."""
        return datetime.now(UTC)

    def not_before(self, instant: datetime) -> None:
        """Never show less than `instant`: the store has seen it."""
        with self._lock:
            behind = instant - self.now()
            if behind > timedelta(0):
                self._start += behind

    def drift(self) -> timedelta:
        """How far the wall clock has gone from the manager's own time since the start."""
        return self.wall() - self.now()


def monotonic() -> float:
    """Seconds on a clock that never steps and stands still while the host sleeps."""
    return time.monotonic()


def since_boot() -> float:
    """Seconds on a clock that never steps and goes on while the host sleeps, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
