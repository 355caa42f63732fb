"""Follows a running job, tells it to stop, and brings its end home."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from fleet.execution import cleanup, ending
from fleet.execution.desk import Desk, UnknownMachine
from fleet.execution.follows import Follow, Follows
from fleet.machine.errors import AgentError, MachineError
from fleet.model.job import Job
from fleet.model.lifecycle import JobState, LeaseState
from fleet.store import instances, leases
from fleet.store.worklist import Work

log = structlog.get_logger(__name__)
REQUEST_S = 60.0


def follow(desk: Desk, follows: Follows, work: Work) -> None:
    """Take the job's output from where the spool ends."""
    found = ending.load(desk, work.key)
    if found is None or found.epoch != work.epoch or work.lease is None or work.instance is None:
        return
    job = found
    if follows.is_followed(work.lease):
        return
    try:
        follow_from(desk, follows, job, lease=work.lease, instance=work.instance)
    except AgentError as exc:
        follows.drop(work.lease)
        _unknown(desk, job, work, exc)
    except (MachineError, UnknownMachine) as exc:
        follows.drop(work.lease)
        log.info("follow_postponed", job_key=work.key, instance=work.instance, error=str(exc))
    else:
        log.info("job_followed", job_id=job.gitlab_job_id, job_key=job.key, instance=work.instance)


def follow_from(desk: Desk, follows: Follows, job: Job, *, lease: str, instance: str) -> None:
    """Ask for `data` from the spool's end on; raises MachineError."""
    prologue = job.prologue or b""
    offset = ending.lay_prologue(desk, job.key, prologue) - len(prologue)
    follow = Follow(key=job.key, epoch=job.epoch, lease=lease, instance=instance, shift=len(prologue))
    follows.add(follow)
    desk.channel(instance).request("follow", REQUEST_S, lease=lease, epoch=job.epoch, offset=offset)
    follow.settled = True


def _unknown(desk: Desk, job: Job, work: Work, error: AgentError) -> None:
    """The agent does not follow this lease: it was taken over, or the machine has forgotten it."""
    log.warning("follow_refused", job_key=work.key, instance=work.instance, slug=error.slug_of_agent, error=str(error))
    if error.slug_of_agent in ("unknown_lease", "cleaned"):
        result = {
            "outcome": "lost",
            "reason": "runner_system_failure",
            "message": f"the machine {work.instance} no longer knows this job ({error.slug_of_agent})",
        }
        held = max(0, desk.spool.size(job.key) - len(job.prologue or b""))
        ending.end_with_result(desk, job, result, held)
        desk.hint("execute")


def tell_stop(desk: Desk, work: Work) -> bool:
    """Tell the agent to cancel or abort the job; True when it knows."""
    if work.instance is None or work.lease is None:
        return False
    kind = "cancel" if work.stop == "cancel" else "abort"
    try:
        desk.channel(work.instance).request(kind, REQUEST_S, lease=work.lease, epoch=work.epoch, reason=work.stop or "")
    except (MachineError, UnknownMachine) as exc:
        log.warning("stop_not_told", job_key=work.key, instance=work.instance, how=kind, error=str(exc))
        return False
    log.info("job_stopped", job_key=work.key, instance=work.instance, how=kind)
    return True


def exited(desk: Desk, follows: Follows, followed: Follow, frame: Mapping[str, Any]) -> None:
    """The agent says that the job has ended: its row, the rest of its spool, then the machine may forget it."""
    found = ending.load(desk, followed.key)
    if found is None or found.epoch != followed.epoch:
        follows.drop(followed.lease)
        return
    job, log_bytes = found, int(frame["log_bytes"])
    if job.state is JobState.RUNNING or job.state is JobState.STARTING:
        missing = followed.shift + log_bytes - desk.spool.size(job.key)
        if missing > 0:  # bytes were skipped while the spool was full
            follows.drop(followed.lease)
            desk.hint("execute")
            return
        if ending.end_with_result(desk, job, frame["result"], log_bytes) is None:
            follows.drop(followed.lease)
            return
    desk.hint("execute")
    _after_exit(desk, follows, followed)


def _after_exit(desk: Desk, follows: Follows, followed: Follow) -> None:
    found = ending.load(desk, followed.key)
    if found is not None and ending.complete_spool(desk, found) and found.outcome is not None:
        desk.reports.finish(followed.key, found.outcome)
    lease = desk.store.read(lambda tx: leases.lease(tx, followed.lease))
    if lease is not None and lease.state is LeaseState.CLEANING and not (found is not None and desk.holds_logs):
        cleanup.clean_now(desk, follows, lease, followed.epoch)
    follows.drop(followed.lease)


def end_lost(desk: Desk, follows: Follows, work: Work) -> None:
    """The machine is lost: what its agent had not sent yet is gone with it."""
    found = ending.load(desk, work.key)
    if found is None or found.state is not JobState.RUNNING or found.epoch != work.epoch:
        return
    job = found
    result = {"outcome": "lost", "reason": "runner_system_failure", "message": _loss(desk, work)}
    held = max(0, desk.spool.size(job.key) - len(job.prologue or b""))
    ending.end_with_result(desk, job, result, held)
    if work.lease is not None:
        follows.drop(work.lease)
    desk.hint("execute")


def _loss(desk: Desk, work: Work) -> str:
    """What people are told of a lost machine; a given one cannot be switched off by us."""
    instance = work.instance
    why = None if instance is None else desk.store.read(lambda tx: instances.end_reason(tx, instance))
    pool = desk.book.pools.get(work.pool)
    still = pool is not None and pool.limits.fixed_inventory
    return "".join(
        (
            f"the machine {instance} was lost",
            f": {why}" if why else "",
            "; it is not ours to switch off, so the script may still be running there" if still else "",
        )
    )


def finish(desk: Desk, follows: Follows, work: Work) -> None:
    """Hand an ended job to the reporter, once its spool is whole."""
    found = ending.load(desk, work.key)
    if found is None or found.epoch != work.epoch or found.outcome is None:
        return
    job = found
    assert job.outcome is not None
    whole = ending.complete_spool(desk, job)
    if whole:
        desk.reports.finish(job.key, job.outcome)
        return
    if job.key not in desk.reports.watched():
        return  # its end was told while we looked, and its spool is gone
    if work.lease_state is LeaseState.CLEANING and not _is_log_gone(desk, follows, job, work):
        return
    ending.give_up_log(desk, job)
    desk.reports.finish(job.key, job.outcome, incomplete=True)


def _is_log_gone(desk: Desk, follows: Follows, job: Job, work: Work) -> bool:
    """Fetch what this host lacks of an ended job's log: another manager ran it, and its machine is not clean yet."""
    assert work.lease is not None
    assert work.instance is not None
    try:
        follow_from(desk, follows, job, lease=work.lease, instance=work.instance)
    except (MachineError, UnknownMachine) as exc:
        follows.drop(work.lease)
        log.warning("log_not_fetched", job_key=job.key, instance=work.instance, error=str(exc))
        return isinstance(exc, AgentError) and exc.slug_of_agent in ("unknown_lease", "cleaned")
    return False
