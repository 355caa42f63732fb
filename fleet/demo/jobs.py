"""One job on the server's side: its states, its hand-overs (attempts), and what it has been told.

    pending -> assigned -> running -> success | failed
    assigned -> pending             nobody acknowledged: a new attempt with a new token follows
    pending | assigned | running -> canceled;  running -> canceling -> canceled

Rule: all fields are guarded by the one lock of `State`. Which HTTP answer follows is `jobs_api`'s
business.
"""

from __future__ import annotations

import dataclasses
import enum
import secrets
import time
from typing import Any

from fleet.demo.pace import Pace
from fleet.demo.payload import Payload
from fleet.demo.traces import Trace

EVENTS_KEPT = 5_000
ROUTINE = frozenset({"trace", "touch", "range_refused", "final"})


class JobState(enum.StrEnum):
    """GitLab's words, and `assigned` for a job that was handed out and is not yet acknowledged."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    RUNNING = "running"
    CANCELING = "canceling"
    CANCELED = "canceled"
    SUCCESS = "success"
    FAILED = "failed"


ENDED = frozenset({JobState.SUCCESS, JobState.FAILED, JobState.CANCELED})


@dataclasses.dataclass(slots=True, kw_only=True)
class Attempt:
    """One hand-over of a job to one manager; calls prove themselves by its token."""

    token: str
    runner_id: int
    system_id: str
    features: dict[str, Any]
    assigned_at: float
    acknowledged: bool = False
    ack_was_tried: bool = False
    superseded: bool = False
    told_over_at: float | None = None
    repeats_allowed: int = 0
    session: dict[str, str] | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class Drivers:
    """Which manager drives an attempt; a take-over that was announced lets another one step in."""

    current: str = ""
    takeover: bool = False
    former: dict[str, int] = dataclasses.field(default_factory=dict)

    def is_stranger(self, system_id: str) -> bool:
        """Whether a call by this manager is a breach.

        After a take-over the former manager may still finish the one call it had in the air.
        """
        if system_id == self.current:
            return False
        if not self.takeover:
            known = system_id in self.former
            self.former[system_id] = self.former.get(system_id, 0) + 1
            return not known or self.former[system_id] > 1
        self.former.pop(system_id, None)  # it may have had the job before
        self.former[self.current] = 0
        self.current, self.takeover = system_id, False
        return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FinalWord:
    """What a final update claims; two different ones mean that the job was driven twice."""

    state: str
    failure_reason: str
    exit_code: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """What a test may ask about a job; all instants are Unix seconds."""

    id: int
    name: str
    stage: str
    state: str
    failure_reason: str
    exit_code: int
    runner_id: int | None
    system_ids: list[str]
    attempts: int
    requeued: int
    features: dict[str, Any]
    trace_size: int
    trace_checksum: str
    queued_at: float
    assigned_at: float | None
    acknowledged_at: float | None
    first_trace_at: float | None
    marker_at: float | None
    ended_at: float | None
    events: list[tuple[float, str, str]]

    @property
    def is_ended(self) -> bool:
        """Whether the job will not change again."""
        return self.state in ENDED


@dataclasses.dataclass(slots=True, kw_only=True)
class Job:
    """The mutable record."""

    id: int
    payload: Payload
    pace: Pace
    runner_id: int | None = None
    requires: tuple[str, ...] = ()
    marker: bytes = b""
    final_202: int = 0
    final_412: int = 0
    state: JobState = JobState.PENDING
    failure_reason: str = ""
    exit_code: int = 0
    trace: Trace = dataclasses.field(default_factory=Trace)
    attempts: list[Attempt] = dataclasses.field(default_factory=list)
    requeued: int = 0
    final_word: FinalWord | None = None
    final_at: float | None = None
    final_is_open: bool = False
    erased: bool = False
    refused_ranges: int = 0
    may_not_know_size: bool = False
    drivers: Drivers = dataclasses.field(default_factory=Drivers)
    instants: dict[str, float] = dataclasses.field(default_factory=dict)
    events: list[tuple[float, str, str]] = dataclasses.field(default_factory=list)

    @property
    def attempt(self) -> Attempt | None:
        """The hand-over that counts, if there was one."""
        return self.attempts[-1] if self.attempts else None

    def note(self, name: str, detail: str = "") -> None:
        """Write one line into the timeline; the first of each name is an instant of its own."""
        now = time.time()
        self.instants.setdefault(name, now)
        if len(self.events) < EVENTS_KEPT or name not in ROUTINE:
            self.events.append((now, name, detail))

    def assign(self, *, runner_id: int, system_id: str, features: dict[str, Any], at: float) -> Attempt:
        """Hand it over under a new token."""
        attempt = Attempt(
            token="glcbt-" + secrets.token_urlsafe(20),
            runner_id=runner_id,
            system_id=system_id,
            features=features,
            assigned_at=at,
        )
        self.attempts.append(attempt)
        self.drivers = Drivers(current=system_id)
        self.state = JobState.ASSIGNED
        self.note("assigned", system_id)
        return attempt

    def give_up_attempt(self) -> None:
        """Nobody acknowledged: back to the queue, and the old token opens nothing."""
        if self.attempt is not None:
            self.attempt.superseded = True
        self.state = JobState.PENDING
        self.requeued += 1
        self.trace.forget_from(0)
        self.trace.allow_rewrite()
        self.note("requeued")

    def acknowledge(self) -> None:
        """The manager said that it has the job."""
        attempt = self.attempt
        if attempt is not None and not attempt.acknowledged:
            attempt.acknowledged = True
            self.state = JobState.RUNNING if self.state is JobState.ASSIGNED else self.state
            self.note("acknowledged")

    def end(self, state: JobState, failure_reason: str = "", exit_code: int = 0) -> None:
        """Nothing follows; the attempt may say its last word once more."""
        self.state, self.failure_reason, self.exit_code = state, failure_reason, exit_code
        self.note("ended", state)

    def forgive(self) -> None:
        """An answer was lost or the manager restarted: it may not know where it stands."""
        self.pace.forgive(time.monotonic())
        self.refused_ranges = 0
        self.final_is_open = False
        self.final_at = None
        self.may_not_know_size = self.trace.lost_some
        for attempt in self.attempts:
            attempt.told_over_at = None
            attempt.repeats_allowed += 1

    def view(self) -> JobView:
        """A frozen copy."""
        info = self.payload.get("job_info") or {}
        attempt = self.attempt
        return JobView(
            id=self.id,
            name=info.get("name", ""),
            stage=info.get("stage", ""),
            state=self.state,
            failure_reason=self.failure_reason,
            exit_code=self.exit_code,
            runner_id=attempt.runner_id if attempt else self.runner_id,
            system_ids=[each.system_id for each in self.attempts],
            attempts=len(self.attempts),
            requeued=self.requeued,
            features=attempt.features if attempt else {},
            trace_size=self.trace.size,
            trace_checksum=self.trace.checksum,
            queued_at=self.instants["queued"],
            assigned_at=self.instants.get("assigned"),
            acknowledged_at=self.instants.get("acknowledged"),
            first_trace_at=self.instants.get("first_trace"),
            marker_at=self.instants.get("marker"),
            ended_at=self.instants.get("ended"),
            events=list(self.events),
        )
