"""Rows of jobs. A change is applied only by the owner, under the epoch it knows; anyone else changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet.model.ids import JobKey, LeaseId, ManagerId, PoolName, RunnerKey
from fleet.model.job import Job, Outcome
from fleet.model.lifecycle import JobState, check_job
from fleet.store.database import Tx
from fleet.store.leases import forget_demand
from fleet.store.statements import add, change, find
from fleet.store.tables import OPEN, jobs

COLUMNS = [column for column in jobs.c if column.name != "payload"]
ENDED = (JobState.FINISHED, JobState.ABANDONED)


def receive(
    tx: Tx,
    *,
    job_key: str,
    runner_key: str,
    pool: str,
    url: str,
    gitlab_job_id: int,
    project_id: int,
    name: str,
    token: str,
    payload: bytes,
    deadline_at: datetime,
    owner: str,
) -> None:
    """Commit what GitLab handed over; from here on the job survives the manager (law 4)."""
    add(
        tx,
        jobs,
        job_key=job_key,
        runner_key=runner_key,
        pool=pool,
        url=url,
        gitlab_job_id=gitlab_job_id,
        project_id=project_id,
        name=name,
        token=tx.seal.close(token.encode()),
        payload=tx.seal.close(payload),
        state=JobState.RECEIVED.value,
        state_at=tx.now,
        received_at=tx.now,
        deadline_at=deadline_at,
        owner=owner,
        epoch=1,
    )
    tx.journal(
        "job",
        job_key,
        "received",
        f"GitLab handed over job {gitlab_job_id} ({name}) to {runner_key}",
        new=JobState.RECEIVED.value,
        pool=pool,
        job_key=job_key,
    )


def job(tx: Tx, job_key: str) -> Job | None:
    """One job; None when there is none."""
    row = find(tx, jobs.c.job_key, job_key, *COLUMNS)
    return None if row is None else _value(tx, row)


def open_jobs(tx: Tx, owner: str, states: Iterable[JobState] = ()) -> list[Job]:
    """The open jobs of a manager, oldest first; only those in `states` where any are given."""
    query = sa.select(*COLUMNS).where(OPEN, jobs.c.owner == owner)
    wanted = [state.value for state in states]
    if wanted:
        query = query.where(jobs.c.state.in_(wanted))
    return [_value(tx, row) for row in tx.sql.execute(query.order_by(jobs.c.received_at, jobs.c.job_key))]


def payload_of(tx: Tx, job_key: str) -> bytes:
    """The payload as GitLab sent it; empty when the job has ended."""
    sealed: bytes = tx.sql.execute(sa.select(jobs.c.payload).where(jobs.c.job_key == job_key)).scalar_one()
    return tx.seal.open(sealed) if sealed else b""


def _value(tx: Tx, row: Any) -> Job:
    return Job(
        key=JobKey(row.job_key),
        runner=RunnerKey(row.runner_key),
        pool=PoolName(row.pool),
        url=row.url,
        gitlab_job_id=row.gitlab_job_id,
        project_id=row.project_id,
        name=row.name,
        token=tx.seal.open(row.token).decode() if row.token else "",
        state=JobState(row.state),
        received_at=row.received_at,
        deadline_at=row.deadline_at,
        owner=ManagerId(row.owner),
        epoch=row.epoch,
        lease=None if row.lease_id is None else LeaseId(row.lease_id),
        moves=row.moves,
        stop=row.stop,
        stop_reason=row.stop_reason,
        prologue=row.prologue,
        epilogue=row.epilogue,
        log_bytes=row.log_bytes,
        outcome=None if row.outcome is None else Outcome(**json.loads(row.outcome)),
        sent_bytes=row.sent_bytes,
    )


def move_job(
    tx: Tx,
    key: str,
    epoch: int | None,
    new: JobState,
    *,
    stimulus: str,
    reason: str,
    only_from: Iterable[JobState] = (),
    **columns: Any,
) -> bool:
    """Bring a job into another state; False when the claim is gone or the job is not in `only_from` any more.

    `epoch` None is for changes that planning makes under the pool's lock, whoever owns the job.
    """
    row = find(tx, jobs.c.job_key, key, jobs.c.state, jobs.c.epoch, jobs.c.pool, lock=True)
    if row is None or (epoch is not None and row.epoch != epoch):
        return False
    old = JobState(row.state)
    allowed = tuple(only_from)
    if (allowed and old not in allowed) or old in ENDED:
        return False
    check_job(key, old, new)
    values: dict[str, Any] = {"state": new.value, "state_at": tx.now, **columns}
    if new in ENDED:  # nothing secret outlives the job
        values |= {"token": b"", "payload": b"", "finished_at": tx.now}
    change(tx, jobs.c.job_key, key, **values)
    if new in ENDED or new is JobState.FINISHING:
        forget_demand(tx, key)
    tx.journal("job", key, stimulus, reason, old=old.value, new=new.value, pool=row.pool, job_key=key)
    return True


def update_job(tx: Tx, key: str, epoch: int, **columns: Any) -> bool:
    """Change what is no state, while the claim holds."""
    done = tx.sql.execute(sa.update(jobs).where(jobs.c.job_key == key, jobs.c.epoch == epoch).values(**columns))
    return done.rowcount == 1


def finish_job(tx: Tx, key: str, epoch: int, outcome: Outcome, **columns: Any) -> bool:
    """The job has ended on its machine, or never gets one: what is left is to tell GitLab."""
    return move_job(
        tx,
        key,
        epoch,
        JobState.FINISHING,
        stimulus=outcome.failure_reason or outcome.state,
        reason=outcome.message or "the job succeeded",
        outcome=json.dumps(asdict(outcome)),
        **columns,
    )


def note_sent(tx: Tx, sent: Iterable[tuple[str, int, int, int]]) -> None:
    """Remember how much of each trace GitLab has: (key, epoch, bytes, CRC-32 of them)."""
    rows = [{"k": key, "e": epoch, "b": size, "c": crc} for key, epoch, size, crc in sent]
    if rows:
        tx.sql.execute(
            sa.update(jobs)
            .where(jobs.c.job_key == sa.bindparam("k"), jobs.c.epoch == sa.bindparam("e"))
            .values(sent_bytes=sa.bindparam("b"), sent_crc=sa.bindparam("c")),
            rows,
        )
