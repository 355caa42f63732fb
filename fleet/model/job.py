"""A job and what became of it, as rows show them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fleet.model.ids import InstanceId, JobKey, LeaseId, ManagerId, PoolName, RunnerKey
from fleet.model.lifecycle import JobState, LeaseState


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended, in GitLab's words.

    Attributes:
        state: `success` or `failed`.
        failure_reason: None for a success.
        exit_code: of the failing script; 0 when there is none to tell.
        message: the line that people read at the end of the log.
    """

    state: str
    failure_reason: str | None = None
    exit_code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that this manager owns.

    Attributes:
        epoch: of our ownership; every change is applied only while it holds.
        stop: `cancel` or `abort` when GitLab or a person asked for it.
        log_bytes: length of the agent's log once it is complete; None before.
        sent_bytes: how much of the trace GitLab has.
    """

    key: JobKey
    runner: RunnerKey
    pool: PoolName
    url: str
    gitlab_job_id: int
    project_id: int
    name: str
    token: str
    state: JobState
    received_at: datetime
    deadline_at: datetime
    owner: ManagerId
    epoch: int
    lease: LeaseId | None = None
    moves: int = 0
    stop: str | None = None
    stop_reason: str | None = None
    prologue: bytes | None = None
    epilogue: bytes | None = None
    log_bytes: int | None = None
    outcome: Outcome | None = None
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A slot of one instance, held by one job.

    Attributes:
        state_at: when it entered its state; None while that is not known.
    """

    lease_id: LeaseId
    instance: InstanceId
    job: JobKey
    slot: int
    concurrent_id: int
    project_concurrent_id: int
    state: LeaseState
    epoch: int = 0
    state_at: datetime | None = None
