"""Runs controllers: each at its period, never twice at once, and early when somebody hints.

A hint carries no data. One that comes while the controller runs makes it run again at once, so nothing that happened
during a run is overlooked. APScheduler keeps the periods; because it follows the wall clock, a watch on the monotonic
clock wakes every controller when that clock steps, and any that has slept too long.

The threads are daemons: a controller that hangs in the database does not keep the process from ending.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from fleet.sdk import FleetError

log = structlog.get_logger(__name__)
THREADS = 16
LOOK_S = 2.0
STEP_S = 1.0


class _Threads:
    """A pool of daemon threads, as far as APScheduler needs one."""

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._work = queue.SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._run, name=f"controllers-{number}", daemon=True).start()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._work.put((future, call, arguments))
        return future

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002  `Driver.close` waits, and not for ever
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, call, arguments = item
            try:
                future.set_result(call(*arguments))
            except BaseException as exc:  # noqa: BLE001  it is the future's to tell
                future.set_exception(exc)
            del item, future, call, arguments  # nothing may hold on to what the work held


class _Executor(BasePoolExecutor):  # type: ignore[misc]  # APScheduler has no types
    def __init__(self) -> None:
        super().__init__(_Threads(THREADS))


@dataclass(slots=True, kw_only=True)
class Controller:
    """Something that is done again and again.

    Attributes:
        name: for logs, metrics and hints.
        period_s: how often it runs without a hint.
        activate: does it and returns a typed status; takes no input and never waits on the outside.
        problem: what kept it from its work the last time.
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
    problem: str | None = None


class Driver:
    """Runs controllers until it is closed. Thread-safe."""

    def __init__(self, on_failure: Callable[[str, Exception], None] | None = None) -> None:
        self._executor = _Executor()
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": self._executor})
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

    def wake_in(self, name: str, seconds: float) -> None:
        """Run a controller in `seconds`, where its period would let it sleep for longer."""
        job = self._scheduler.get_job(name)
        at = datetime.now(UTC) + timedelta(seconds=max(0.0, seconds))  # noqa: TID251  as in add()
        if job is not None and not self._closing.is_set() and (job.next_run_time is None or at < job.next_run_time):
            self._soon(name, at)

    def _soon(self, name: str, at: datetime | None = None) -> None:
        with contextlib.suppress(JobLookupError):  # the driver was closed meanwhile
            self._scheduler.modify_job(name, next_run_time=at or datetime.now(UTC))  # noqa: TID251  as in add()

    def close(self, patience_s: float = 10.0) -> bool:
        """Start nothing more and wait for what runs; False when something still runs after `patience_s`."""
        self._closing.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        else:
            self._executor.shutdown()
        if self._watch.is_alive():
            self._watch.join(2)
        until = time.monotonic() + patience_s
        while any(each.running for each in self._controllers.values()):
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        return True

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
        except FleetError as exc:
            controller.failures += 1
            self._hinder(controller, str(exc))
        except Exception as exc:
            controller.failures += 1
            if self._on_failure is not None:
                self._on_failure(controller.name, exc)
            else:
                log.exception("controller_failed", controller=controller.name)
        else:
            self._hinder(controller, None)
        controller.runs += 1
        controller.last_at = time.monotonic()
        controller.last_s = controller.last_at - started

    def _hinder(self, controller: Controller, problem: str | None) -> None:
        """Say once that a controller cannot do its work, and once that it can again: each period tries."""
        before, controller.problem = controller.problem, problem
        if problem is not None and before is None and not self._closing.is_set():
            log.warning("controller_hindered", controller=controller.name, error=problem)
        if problem is None and before is not None:
            log.info("controller_goes_on", controller=controller.name)

    def _wake_late(self) -> None:
        before = _wall_ahead()
        while not self._closing.wait(LOOK_S):
            now, ahead = time.monotonic(), _wall_ahead()
            stepped, before = abs(ahead - before) > STEP_S, ahead
            for controller in self._controllers.values():
                late = now - controller.last_at > 2 * controller.period_s + LOOK_S
                if not controller.running and (stepped or late):
                    controller.dirty = False
                    self._soon(controller.name)


def _wall_ahead() -> float:
    """How far the wall clock, which APScheduler goes by, is ahead of the monotonic clock."""
    return datetime.now(UTC).timestamp() - time.monotonic()  # noqa: TID251  as in add()


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
