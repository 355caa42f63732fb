"""Runs controllers: each at its period, never twice at once, and early when somebody hints.

A hint carries no data. One that comes while the controller runs makes it run again at once, so nothing that happened
during a run is overlooked. APScheduler keeps the periods; because it follows the wall clock, a watch on the monotonic
clock wakes every controller that a step of that clock has put to sleep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Controller:
    """Something that is done again and again.

    Attributes:
        name: for logs, metrics and hints.
        period_s: how often it runs without a hint.
        activate: does it and returns a typed status; takes no input and never waits on the outside.
    """

    name: str
    period_s: float
    activate: Callable[[], object]
    status: object = None
    runs: int = 0
    failures: int = 0
    last_s: float = 0.0
    last_at: float = field(default=0.0)
    running: bool = False
    dirty: bool = False


class Driver:
    """Runs controllers until it is closed. Thread-safe."""

    def __init__(self, on_failure: Callable[[str, Exception], None] | None = None) -> None:
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(16)})
        self._controllers: dict[str, Controller] = {}
        self._lock = threading.Lock()
        self._on_failure = on_failure
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._wake_late, name="driver-watch", daemon=True)

    @property
    def controllers(self) -> dict[str, Controller]:
        """All of them, by name."""
        return dict(self._controllers)

    def add(self, controller: Controller) -> None:
        """Run `controller` from now on."""
        self._controllers[controller.name] = controller
        self._scheduler.add_job(
            self._run,
            "interval",
            seconds=controller.period_s,
            id=controller.name,
            args=[controller],
            max_instances=2,  # the second finds `running` set and only marks it dirty
            coalesce=True,
            misfire_grace_time=None,
            next_run_time=datetime.now(UTC),  # noqa: TID251  APScheduler's own clock is the wall clock
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._watch.start()

    def wake(self, *names: str) -> None:
        """Run these controllers as soon as may be."""
        if self._closing.is_set():
            return
        for name in names:
            controller = self._controllers.get(name)
            if controller is None:
                continue
            with self._lock:
                if controller.running or controller.dirty:
                    controller.dirty = True
                    continue
                controller.dirty = True
            self._soon(name)

    def _soon(self, name: str) -> None:
        self._scheduler.modify_job(name, next_run_time=datetime.now(UTC))  # noqa: TID251  as in add()

    def close(self) -> None:
        """Start nothing more and wait for what runs."""
        self._closing.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
        if self._watch.is_alive():
            self._watch.join(2)

    def _run(self, controller: Controller) -> None:
        with self._lock:
            if controller.running:
                controller.dirty = True
                return
            controller.running = True
        try:
            again = True
            while again and not self._closing.is_set():
                controller.dirty = False
                self._once(controller)
                again = controller.dirty
        finally:
            with self._lock:
                controller.running = False
                late = controller.dirty
                controller.dirty = False
        if late and not self._closing.is_set():  # a hint between the last look and the end of the run
            self.wake(controller.name)

    def _once(self, controller: Controller) -> None:
        started = time.monotonic()
        try:
            controller.status = controller.activate()
        except Exception as exc:
            controller.failures += 1
            if self._on_failure is not None:
                self._on_failure(controller.name, exc)
            else:
                log.exception("controller_failed", controller=controller.name)
        controller.runs += 1
        controller.last_at = time.monotonic()
        controller.last_s = controller.last_at - started

    def _wake_late(self) -> None:
        while not self._closing.wait(2.0):
            now = time.monotonic()
            for controller in self._controllers.values():
                if not controller.running and now - controller.last_at > 2 * controller.period_s + 2:
                    controller.dirty = False
                    self._soon(controller.name)


class Hints:
    """Names for what happened, so that rooms can hint without knowing who listens."""

    def __init__(self) -> None:
        self._wake: Callable[..., Any] | None = None

    def connect(self, wake: Callable[..., Any]) -> None:
        """Send hints to `wake`."""
        self._wake = wake

    def __call__(self, *names: str) -> None:
        """Hint that the controllers `names` have something to do."""
        if self._wake is not None:
            self._wake(*names)
