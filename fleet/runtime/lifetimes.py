"""Times and counts that the journal tells: how long machines take to come and go, how jobs end, what waiting costs.

It reads the journal on from where it was, so a change is counted once however often it is looked at, whoever made it.
On PostgreSQL a line may appear after one with a higher number; the numbers that were missing are looked for again for a
while. Rule: of jobs those of this manager count, of instances those of the pools that it owns, so that the sums over
several managers are right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from fleet.model.ids import PoolName, RunnerKey
from fleet.model.lifecycle import PENDING_INSTANCE
from fleet.model.plan import Plan
from fleet.runtime import rows
from fleet.runtime.meters import Meters
from fleet.store.book import Book
from fleet.store.database import Tx
from fleet.store.journal import high_water

MISSING_S = 120.0
MISSING_MOST = 500
LONGEST_STEP_S = 30.0  # between two looks; after a longer sleep the causes of then are not those of now
PENDING = {state.value for state in PENDING_INSTANCE}


class Lifetimes:
    """Follows the journal. Thread-safe."""

    def __init__(self, meters: Meters, book: Book, me: str) -> None:
        self._meters = meters
        self._book = book
        self._me = me
        self._seq: int | None = None
        self._missing: dict[int, float] = {}
        self._deleting: dict[str, datetime] = {}
        self._waited_at: float | None = None
        self._lock = threading.Lock()
        self._by_kind: Mapping[str, Callable[[rows.Event], None]] = {
            "job": self._job,
            "instance": self._instance,
            "lease": self._lease,
        }

    def catch_up(self, tx: Tx) -> int:
        """Count what has happened since the last call; returns how many lines that were."""
        with self._lock:
            if self._seq is None:
                self._seq = high_water(tx.sql)
                self._deleting = rows.deleting_since(tx)
                return 0
            found = rows.events(tx, self._seq, self._missing)
            for event in found:
                self._note_number(event.seq)
                count = self._by_kind.get(event.kind)
                if count is not None:
                    count(event)
            self._forget_missing()
            return len(found)

    def waited(self, plans: Mapping[PoolName, Plan]) -> None:
        """Count the time since the last call for each job that waits now, under what it waits for."""
        now = time.monotonic()
        with self._lock:
            before, self._waited_at = self._waited_at, now
        if before is None:
            return
        step = min(now - before, LONGEST_STEP_S)
        for pool, plan in list(plans.items()):
            if pool in self._book.owned:
                for wait in plan.waits:
                    self._meters.wait_seconds.labels(pool, wait.slug.value).inc(step)

    def _note_number(self, seq: int) -> None:
        assert self._seq is not None
        if seq <= self._seq:
            self._missing.pop(seq, None)
            return
        until = time.monotonic() + MISSING_S
        for number in range(max(self._seq + 1, seq - MISSING_MOST), seq):
            self._missing[number] = until
        self._seq = seq

    def _forget_missing(self) -> None:
        now = time.monotonic()
        for number in [number for number, until in self._missing.items() if until < now]:
            del self._missing[number]
        for number in list(self._missing)[:-MISSING_MOST]:
            del self._missing[number]

    def who(self, runner: str | None) -> tuple[str, str, str]:
        """The labels of a runner."""
        found = self._book.runners.get(RunnerKey(runner or ""))
        if found is None:
            return "", "", self._me
        return found.short_token, found.settings.name, self._me

    def who_of_pool(self, pool: str) -> tuple[str, str, str, str]:
        """The labels of a pool: those of the first of its runners."""
        keys = sorted(key for key, runner in self._book.runners.items() if runner.pool == pool)
        return (*self.who(keys[0] if keys else None), pool)

    def _job(self, event: rows.Event) -> None:
        if event.owner != self._me:
            return
        who = self.who(event.runner)
        lasted = None if event.received_at is None else (event.at - event.received_at).total_seconds()
        match event.new:
            case "received":
                self._meters.jobs.labels(*who).inc()
            case "running" if lasted is not None:
                self._meters.start_seconds.labels(event.pool or "").observe(lasted)
            case "finishing" if event.stimulus != "success":
                self._meters.failed.labels(*who, event.stimulus, "traditional").inc()
                self._meters.processing_failures.labels(*who, "job_failure").inc()
            case "finished" | "abandoned" if lasted is not None:
                self._meters.job_seconds.labels(*who, "traditional").observe(lasted)

    def _instance(self, event: rows.Event) -> None:
        if event.pool is None or event.pool not in self._book.owned:
            return
        meters, labels = self._meters, self.who_of_pool(event.pool)
        age = None if event.created_at is None else (event.at - event.created_at).total_seconds()
        for (old, new), histogram in {
            ("requested", "creating"): meters.creation,
            ("creating", "booting"): meters.running,
            ("preparing", "ready"): meters.readiness,
            ("deleting", "gone"): meters.life,
        }.items():
            if (event.old, event.new) == (old, new) and age is not None:
                histogram.labels(*labels).observe(age)
        if event.old is None and event.new is not None:
            meters.instance_operations.labels(*labels, "create").inc()
            meters.scale_operations.labels(*labels, "up").inc()
        elif event.new == "deleting":
            self._deleting[event.object_id] = event.at
            meters.instance_operations.labels(*labels, "fail" if event.old in PENDING else "delete").inc()
            meters.scale_operations.labels(*labels, "down").inc()
        elif event.new == "gone" and (since := self._deleting.pop(event.object_id, None)) is not None:
            meters.deletion.labels(*labels).observe((event.at - since).total_seconds())

    def _lease(self, event: rows.Event) -> None:
        if event.pool is None or event.pool not in self._book.owned:
            return
        operation = {"granted": "acquire", "released": "release", "lost": "lose"}.get(event.new or "")
        if operation is not None:
            self._meters.task_operations.labels(*self.who_of_pool(event.pool), operation).inc()
