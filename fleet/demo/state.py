"""Everything the pretend GitLab knows, behind one lock, and the queue of jobs.

Rule: whoever reads or changes a job or a runner holds `lock`; long work (reading a body, sleeping,
writing an answer) is done without it. `changed` wakes those who wait for a job's state, `queued`
wakes held polls.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable

from fleet.demo.artifacts import Artifacts
from fleet.demo.faults import Faults
from fleet.demo.jobs import ENDED, Attempt, Job, JobState
from fleet.demo.pace import Pace
from fleet.demo.payload import Payload
from fleet.demo.runners import Runner, Runners
from fleet.demo.violations import Violations

FIRST_JOB_ID = 1001


@dataclasses.dataclass(slots=True, kw_only=True)
class Knobs:
    """What a test may set while the server runs; `artifacts_limit_bytes` 0 is no limit."""

    hold_s: float = 0.0
    ack_within_s: float = 15.0
    update_interval_s: int = 3
    slack_s: float = 0.25
    artifacts_limit_bytes: int = 0


class State:
    """Runners, jobs, queue, faults, breaches."""

    def __init__(self, knobs: Knobs | None = None) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.queued = threading.Condition(self.lock)
        self.stopping = threading.Event()
        self.knobs = knobs or Knobs()
        self.runners = Runners()
        self.faults = Faults()
        self.violations = Violations()
        self.artifacts = Artifacts()
        self.jobs: dict[int, Job] = {}
        self.outage_until: float | None = None
        self.url = ""
        self.storage_url = ""
        self._attempts: dict[str, tuple[Job, Attempt]] = {}
        self._queues: dict[int | None, collections.deque[int]] = collections.defaultdict(collections.deque)
        self._unacknowledged: set[int] = set()
        self._ids = itertools.count(FIRST_JOB_ID)

    def enqueue(
        self,
        payload: Payload,
        *,
        runner_id: int | None = None,
        marker: str = "",
        requires: tuple[str, ...] = (),
        final_202: int = 0,
        final_412: int = 0,
    ) -> int:
        """Put a job at the end of the queue of one runner, or of all; its id."""
        with self.lock:
            job = Job(
                id=next(self._ids),
                payload=payload,
                pace=Pace(self.knobs.slack_s),
                runner_id=runner_id,
                requires=requires,
                marker=marker.encode(),
                final_202=final_202,
                final_412=final_412,
            )
            self.jobs[job.id] = job
            job.note("queued")
            self._queue(job)
            return job.id

    def take(
        self, runner: Runner, system_id: str, features: dict[str, object], *, still_there: Callable[[], bool]
    ) -> tuple[Job, Attempt] | None:
        """Hand the oldest fitting job to this manager, unless it has hung up meanwhile."""
        while (job := self._oldest(runner.id)) is not None:
            if not still_there():
                return None
            self._queues[job.runner_id].popleft()
            if job.state is not JobState.PENDING:
                continue
            if any(not features.get(name) for name in job.requires):
                job.end(JobState.FAILED, "runner_unsupported")
                self.changed.notify_all()
                continue
            now = time.monotonic()
            attempt = job.assign(runner_id=runner.id, system_id=system_id, features=features, at=now)
            self._attempts[attempt.token] = (job, attempt)
            self._unacknowledged.add(job.id)
            self.changed.notify_all()
            return job, attempt
        return None

    def holds_a_job_for(self, runner: Runner) -> bool:
        """Whether a job still waits that this runner could have."""
        return self._oldest(runner.id) is not None

    def driven_by(self, token: str) -> tuple[Job, Attempt] | None:
        """The job and attempt that a job token opens."""
        return self._attempts.get(token)

    def requeue_unacknowledged(self, now: float) -> None:
        """Take back what was handed out and never acknowledged."""
        with self.lock:
            for job in [self.jobs[job_id] for job_id in self._unacknowledged]:
                attempt = job.attempt
                if job.state is not JobState.ASSIGNED or attempt is None:
                    self._unacknowledged.discard(job.id)
                elif now - attempt.assigned_at > self.knobs.ack_within_s:
                    self._unacknowledged.discard(job.id)
                    job.give_up_attempt()
                    self._queue(job)
                    self.changed.notify_all()

    def settle(self, job: Job, state: JobState, failure_reason: str = "", exit_code: int = 0) -> None:
        """End a job and wake whoever waits for that."""
        if job.state not in ENDED:
            job.end(state, failure_reason, exit_code)
            self.changed.notify_all()

    def forgive_all(self) -> None:
        """Every job's manager may not know where it stands: it was killed and started again."""
        with self.lock:
            for job in self.jobs.values():
                job.forgive()

    def in_outage(self) -> bool:
        """Whether every call is to be refused now."""
        until = self.outage_until
        return until is not None and time.monotonic() < until

    def stop(self) -> None:
        """Wake everybody who waits; held polls answer 204."""
        self.stopping.set()
        with self.lock:
            self.queued.notify_all()
            self.changed.notify_all()

    def _queue(self, job: Job) -> None:
        self._queues[job.runner_id].append(job.id)
        for runner in self.runners.all():
            if job.runner_id in {None, runner.id}:
                runner.queue_version += 1
        self.queued.notify_all()
        self.changed.notify_all()

    def _oldest(self, runner_id: int) -> Job | None:
        heads = [self._queues[key][0] for key in (runner_id, None) if self._queues.get(key)]
        return self.jobs[min(heads)] if heads else None
