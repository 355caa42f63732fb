"""Notices that a clock was set or that the host slept, before anybody decides by the time.

Three clocks are compared from one look to the next: one that stands still while the host sleeps, one that goes on, and
the one that people set (on PostgreSQL the server's, which is the store's). After a step of more than `STEP`, and after
as long without a look, one planning round removes nothing, because what is known of the machines is older than it
seems. A step of the store's own clock moves every deadline with it; the manager's own time on SQLite does not step
(`runtime.clock`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from fleet.runtime.clock import STEP, Clock, monotonic, since_boot
from fleet.store.database import Store
from fleet.store.shifting import shift

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """Three clocks at one moment, in seconds."""

    awake: float
    passed: float
    shown: float


@dataclass(slots=True, kw_only=True)
class ClockWatch:
    """Looks at the clocks. Thread-safe.

    Attributes:
        freeze: lets the next planning round remove nothing.
    """

    store: Store
    clock: Clock
    freeze: Callable[[], None]
    steps: int = 0
    _last: _Look | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, activate: Callable[[], object]) -> Callable[[], object]:
        """`activate`, with a look at the clocks before it."""

        def look_first() -> object:
            self.look()
            return activate()

        return look_first

    def look(self) -> timedelta:
        """How far the clock that people set has stepped since the last look; heeds it."""
        with self._lock:
            now, last = self._read(), self._last
            if now is None or last is None:
                self._last = now or last
                return timedelta(0)
            passed = now.passed - last.passed
            asleep = timedelta(seconds=passed - (now.awake - last.awake))
            stepped = timedelta(seconds=now.shown - last.shown - passed)
            if passed > STEP.total_seconds():
                self._stood_still(passed, asleep)
            if abs(stepped) > STEP:
                self._heed(stepped, timedelta(seconds=passed))
            self._last = now
            return stepped if abs(stepped) > STEP else timedelta(0)

    def _stood_still(self, passed: float, asleep: timedelta) -> None:
        """We have not looked for long: the host slept, the process was stopped, or the database was away."""
        log.warning("manager_stood_still", for_s=round(passed), host_slept_s=round(asleep.total_seconds()))
        self.freeze()

    def _heed(self, stepped: timedelta, within: timedelta) -> None:
        self.steps += 1
        log.warning("clock_stepped", by_s=round(stepped.total_seconds()), shared=self.store.shared)
        self.freeze()
        if self.store.shared:
            self.store.write(lambda tx: shift(tx, stepped, within=within))

    def _read(self) -> _Look | None:
        """None when the store took too long to say: its answer could be mistaken for a step."""
        before = since_boot()
        shown = self.store.read(lambda tx: tx.now) if self.store.shared else self.clock.wall()
        awake, passed = monotonic(), since_boot()
        if timedelta(seconds=passed - before) > STEP / 4:
            return None
        return _Look(awake=awake, passed=passed, shown=shown.timestamp())
