"""Jobs as people see them, and the story of one job or instance (`fleetctl explain`), told from rows and journal.

As in `fleet.store.listings`: frozen values with JSON-able fields, pages, and no secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fleet.model.lifecycle import JobState
from fleet.store.database import Tx
from fleet.store.journal import story_of
from fleet.store.listings import IS_OPEN, PAGE, ListedInstance, Page, beyond, cursor, instant, one_instance, page
from fleet.store.tables import jobs, leases, runners

HAS_ENDED = sa.text("jobs.state IN ('finished', 'abandoned')")
ENDED = "ended:"  # marks a cursor among the jobs that have ended


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """A job, where it runs, and how it ended.

    Attributes:
        result: GitLab's word for how it ended; None while it has not.
        log_bytes: length of its machine's log once that is complete.
        sent_bytes: how much of the trace GitLab has.
    """

    job_key: str
    gitlab_job_id: int
    project_id: int
    name: str
    url: str
    runner_key: str
    runner_name: str | None
    pool: str
    state: str
    state_at: str
    received_at: str
    deadline_at: str
    finished_at: str | None
    owner: str
    epoch: int
    moves: int
    stop: str | None
    stop_reason: str | None
    lease_id: str | None
    lease_state: str | None
    instance_id: str | None
    slot: int | None
    result: str | None
    failure_reason: str | None
    exit_code: int | None
    message: str | None
    log_bytes: int | None
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryLine:
    """One line of the journal."""

    seq: int
    at: str
    kind: str
    object_id: str
    stimulus: str
    reason: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is known of a job or an instance.

    Attributes:
        kind: `job` or `instance`; what the journal calls it when only the journal still knows it.
        job: the row, for a job that is not forgotten yet.
        instance: the row of the instance, or of the one that the job holds or held last.
        lines: the newest lines of its story, oldest first.
        others: further jobs with the same GitLab id: handed out again, or of another GitLab.
    """

    kind: str
    object_id: str
    job: ListedJob | None = None
    instance: ListedInstance | None = None
    lines: tuple[StoryLine, ...] = ()
    others: tuple[str, ...] = ()


def _rows() -> sa.Select[Any]:
    columns = [
        column for column in jobs.c if column.name not in {"payload", "token", "prologue", "epilogue", "lease_id"}
    ]
    held = (leases.c.lease_id, leases.c.instance_id, leases.c.slot, leases.c.state.label("lease_state"))
    return (
        sa.select(*columns, *held, runners.c.name.label("runner_name"))
        .outerjoin(leases, leases.c.lease_id == jobs.c.lease_id)
        .outerjoin(runners, runners.c.runner_key == jobs.c.runner_key)
    )


def list_jobs(
    tx: Tx,
    *,
    limit: int = PAGE,
    after: str = "",
    pool: str | None = None,
    runner_key: str | None = None,
    states: Iterable[JobState] = (),
) -> Page[ListedJob]:
    """Open jobs, oldest first, then those that have ended, newest first."""
    query = _rows()
    if pool is not None:
        query = query.where(jobs.c.pool == pool)
    if runner_key is not None:
        query = query.where(jobs.c.runner_key == runner_key)
    wanted = [state.value for state in states]
    if wanted:
        query = query.where(jobs.c.state.in_(wanted))
    rows: list[sa.Row[Any]] = []
    if not after.startswith(ENDED):
        rows += tx.sql.execute(_open(query, after).limit(limit + 1))
    if len(rows) <= limit:
        rows += tx.sql.execute(_ended(query, after).limit(limit + 1 - len(rows)))
    return page([_job(row) for row in rows], limit, [_cursor_of(row) for row in rows])


def _open(query: sa.Select[Any], after: str) -> sa.Select[Any]:
    c = jobs.c
    found = query.where(IS_OPEN).order_by(c.received_at, c.job_key)
    return found.where(beyond(after, c.received_at, c.job_key)) if after else found


def _ended(query: sa.Select[Any], after: str) -> sa.Select[Any]:
    c = jobs.c
    found = query.where(HAS_ENDED).order_by(c.finished_at.desc(), c.job_key.desc())
    if not after.startswith(ENDED):
        return found
    return found.where(beyond(after.removeprefix(ENDED), c.finished_at, c.job_key, newest_first=True))


def _cursor_of(row: Any) -> str:
    if row.finished_at is None:
        return cursor(row.received_at, row.job_key)
    return ENDED + cursor(row.finished_at, row.job_key)


def _job(row: Any) -> ListedJob:
    outcome = json.loads(row.outcome or "{}")
    return ListedJob(
        job_key=row.job_key,
        gitlab_job_id=row.gitlab_job_id,
        project_id=row.project_id,
        name=row.name,
        url=row.url,
        runner_key=row.runner_key,
        runner_name=row.runner_name,
        pool=row.pool,
        state=row.state,
        state_at=row.state_at.isoformat(),
        received_at=row.received_at.isoformat(),
        deadline_at=row.deadline_at.isoformat(),
        finished_at=instant(row.finished_at),
        owner=row.owner,
        epoch=row.epoch,
        moves=row.moves,
        stop=row.stop,
        stop_reason=row.stop_reason,
        lease_id=row.lease_id,
        lease_state=row.lease_state,
        instance_id=row.instance_id,
        slot=row.slot,
        result=outcome.get("state"),
        failure_reason=outcome.get("failure_reason"),
        exit_code=outcome.get("exit_code"),
        message=outcome.get("message"),
        log_bytes=row.log_bytes,
        sent_bytes=row.sent_bytes,
    )


def explain(tx: Tx, name: str, *, lines: int = 200) -> Story | None:
    """The story of a job (by our key, its lease's id, or GitLab's job id) or an instance; None when nobody knows it."""
    rows = _jobs_called(tx, name)
    if rows:
        job, *others = [_job(row) for row in rows]
        holder = None if job.instance_id is None else one_instance(tx, job.instance_id)
        told = _lines(tx, job.job_key, lines)
        keys = tuple(other.job_key for other in others)
        return Story(kind="job", object_id=job.job_key, job=job, instance=holder, lines=told, others=keys)
    found, told = one_instance(tx, name), _lines(tx, name, lines)
    if found is not None:
        return Story(kind="instance", object_id=name, instance=found, lines=told)
    own = next((line.kind for line in told if line.object_id == name), None)
    return None if not told else Story(kind=own or "job", object_id=name, lines=told)


def jobs_called(tx: Tx, name: str, *, owner: str | None = None) -> list[ListedJob]:
    """The open jobs of this name (our key, a lease's id, or GitLab's number), the newest first; of one manager."""
    found = [_job(row) for row in _jobs_called(tx, name)]
    return [each for each in found if each.finished_at is None and owner in (None, each.owner)]


def _jobs_called(tx: Tx, name: str) -> list[sa.Row[Any]]:
    """The newest first; GitLab may hand one job out again, and two GitLabs may use one number."""
    leased = sa.select(leases.c.job_key).where(leases.c.lease_id == name).scalar_subquery()
    query = _rows().order_by(jobs.c.received_at.desc(), jobs.c.job_key)
    exact = list(tx.sql.execute(query.where(sa.or_(jobs.c.job_key == name, jobs.c.job_key == leased)).limit(1)))
    if exact or not (name.isascii() and name.isdigit() and len(name) < 19):
        return exact
    return list(tx.sql.execute(query.where(jobs.c.gitlab_job_id == int(name)).limit(PAGE)))


def _lines(tx: Tx, name: str, limit: int) -> tuple[StoryLine, ...]:
    return tuple(
        StoryLine(
            seq=line.seq,
            at=line.at.isoformat(),
            kind=line.kind,
            object_id=line.object_id,
            stimulus=line.stimulus,
            reason=line.reason,
            old=line.more.get("old"),
            new=line.more.get("new"),
        )
        for line in story_of(tx.sql, name, limit)
    )
