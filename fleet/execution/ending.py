"""Brings a job to its end: the outcome and the epilogue into its row, the rest of the trace into the spool.

The row comes first. A manager that is killed between the two finds in the row what the spool still lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import structlog

from fleet.execution import trace_lines
from fleet.execution.desk import Desk
from fleet.execution.outcome import outcome_of
from fleet.model.job import Job, Outcome
from fleet.model.lifecycle import JobState, LeaseState
from fleet.store import jobs, leases
from fleet.store.database import Tx
from fleet.store.jobs import finish_job, move_job

log = structlog.get_logger(__name__)
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT")

ENDED = (JobState.FINISHED, JobState.ABANDONED)


def end_unstarted(desk: Desk, job: Job, outcome: Outcome, *, heading: bytes | None = None) -> None:
    """The job never ran: say why in its trace, below `heading`, and let its lease go."""
    prologue = job.prologue
    if prologue is None:
        prologue = _heading(desk, job) if heading is None else heading
    epilogue = trace_lines.epilogue(outcome=outcome, at=desk.now(), timestamps=_is_stamped(prologue))
    held = max(0, desk.spool.size(job.key) - len(prologue))
    done = desk.store.write(lambda tx: _end(tx, job, outcome, prologue=prologue, epilogue=epilogue, log_bytes=held))
    if done:
        log.info("job_ended", job_id=job.gitlab_job_id, job_key=job.key, reason=outcome.message)
        _forget_if_taken(desk, job)
    desk.hint("execute", "plan")


def end_with_result(desk: Desk, job: Job, result: Mapping[str, Any], log_bytes: int) -> Outcome | None:
    """The agent says how the job ended and that its log is complete; None when the claim is gone."""
    outcome = outcome_of(result=result, stop=job.stop, stop_reason=job.stop_reason)
    epilogue = trace_lines.epilogue(outcome=outcome, at=desk.now(), timestamps=_is_stamped(job.prologue))
    done = desk.store.write(lambda tx: _end(tx, job, outcome, epilogue=epilogue, log_bytes=log_bytes))
    if done:
        log.info(
            "job_ended",
            job_id=job.gitlab_job_id,
            job_key=job.key,
            state=outcome.state,
            failure_reason=outcome.failure_reason,
            exit_code=outcome.exit_code,
        )
        _forget_if_taken(desk, job)
    return outcome if done else None


def _forget_if_taken(desk: Desk, job: Job) -> None:
    """GitLab took the job away: nobody wants the rest of its trace."""
    if job.stop == "abort":
        desk.reports.drop(job.key)
        desk.spool.remove(job.key)


def _heading(desk: Desk, job: Job) -> bytes:
    runner = desk.book.runners.get(job.runner)
    if runner is None:
        return b""
    return trace_lines.heading(runner=desk.runner_facts(runner, {}), at=desk.now())


def _is_stamped(prologue: bytes | None) -> bool:
    return not prologue or STAMP.match(prologue) is not None


def _end(tx: Tx, job: Job, outcome: Outcome, **columns: Any) -> bool:
    if job.stop == "abort":
        done = move_job(
            tx,
            job.key,
            job.epoch,
            JobState.ABANDONED,
            stimulus="taken",
            reason=job.stop_reason or "GitLab took it away",
            outcome=json.dumps(asdict(outcome)),
        )
    else:
        done = finish_job(tx, job.key, job.epoch, outcome, **columns)
    if done and job.lease is not None:
        leases.move_lease(
            tx, job.lease, LeaseState.CLEANING, stimulus="job_ended", reason=outcome.message or "the job succeeded"
        )
    return done


def lay_prologue(desk: Desk, key: str, prologue: bytes) -> int:
    """Let the spool begin with the prologue of the job's row; returns how much is in the spool.

    What begins otherwise was left here by an earlier try of the job, before another manager moved it.
    """
    held = desk.spool.read(key, 0, len(prologue))
    if held != prologue[: len(held)]:
        desk.spool.begin_again(key)
    return desk.spool.append(key, 0, prologue)


def complete_spool(desk: Desk, job: Job) -> bool | None:
    """Bring the spool of an ended job to its full length.

    True when it is whole, None when bytes of the agent's log must come first, False when they are gone for good.
    """
    prologue, epilogue = job.prologue or b"", job.epilogue or b""
    size = lay_prologue(desk, job.key, prologue)
    log_end = len(prologue) + (job.log_bytes or 0)
    if size < log_end:
        return None
    desk.spool.append(job.key, log_end, epilogue)
    return True


def give_up_log(desk: Desk, job: Job) -> None:
    """The rest of the log is gone with its machine: one line says so, and the end is told without a checksum."""
    size = lay_prologue(desk, job.key, job.prologue or b"")
    if size < job.sent_bytes:  # another manager sent more than we have: the line must come behind it
        size = desk.spool.append(job.key, size, b"\n" * (job.sent_bytes - size))
    text = "The rest of this log was lost together with its machine."
    line = trace_lines.notice(text, at=desk.now(), timestamps=_is_stamped(job.prologue))
    desk.spool.append(job.key, size, line + (job.epilogue or b""))


def load(desk: Desk, key: str) -> Job | None:
    """The job; None when it is not open any more."""
    found = desk.store.read(lambda tx: jobs.job(tx, key))
    return None if found is None or found.state in ENDED else found


def load_with_payload(desk: Desk, key: str) -> tuple[Job, bytes] | None:
    """The job and its packed payload, which is costly to open; None when it is not open any more."""

    def read(tx: Tx) -> tuple[Job, bytes] | None:
        found = jobs.job(tx, key)
        return None if found is None or found.state in ENDED else (found, jobs.payload_of(tx, key))

    return desk.store.read(read)
