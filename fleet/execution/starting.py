"""Brings a leased job onto its machine.

The prologue is frozen in the job's row before the first `start` is sent. From that moment the start may have reached
the agent, so the job stays with its machine: a `start` is repeated, which the agent takes once per lease, and a machine
that is lost now takes the job with it. Before that moment, or when the agent itself says no, the job looks for another
machine, at most `MOVES` times.

The job's secrets are fetched on the way, from this thread and in no transaction: that may take two minutes, in which
the job may be canceled. So the prologue is frozen only while the job is still to be started. A job whose start may have
been heard is first looked for at the agent: were a server of secrets away, a running job would else be ended for it.
"""

from __future__ import annotations

import json
import os
import pwd
import time
from dataclasses import replace
from typing import Any, TypedDict

import structlog

from fleet.execution import ending, secrets, trace_lines
from fleet.execution.desk import Desk, UnknownMachine, lease_facts
from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.follows import Follow, Follows
from fleet.execution.jobfile import Rendered, charge_prologue, render, variables_of
from fleet.execution.refused import JobRefused
from fleet.execution.running import follow_from
from fleet.execution.secrets import Resolved
from fleet.execution.signing import with_urls
from fleet.execution.support import refuse_unsupported
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.payload import JobPayload
from fleet.machine.channel import AgentChannel
from fleet.machine.errors import AgentError, MachineError
from fleet.model.job import Job, Lease, Outcome
from fleet.model.lifecycle import JobState, LeaseState
from fleet.settings.pools import PoolKind
from fleet.store import jobs, leases
from fleet.store.book import Pool
from fleet.store.database import Tx
from fleet.store.losing import change_machine
from fleet.store.payloads import unpack
from fleet.store.worklist import Work

log = structlog.get_logger(__name__)
MOVES = 3
START_S = 60.0
OURS = {"bad_job_file", "no_user", "no_shell"}  # no other machine of the pool would do better


def start(desk: Desk, follows: Follows, work: Work) -> None:
    """Start one job on its machine; what cannot be done now is done by the next activation."""
    found = desk.store.read(lambda tx: _load(tx, work))
    if found is None:
        return
    job, lease, packed, remaining_s = found
    try:
        channel = desk.channel(lease.instance)
    except (MachineError, UnknownMachine) as exc:
        _not_reached(desk, job, lease, str(exc))
        return
    raw, beside = unpack(packed)
    runner = desk.book.runners.get(job.runner)
    if runner is None:
        ending.end_unstarted(desk, job, _no("its runner is not known here any more"))
        return
    pool = desk.book.pools[job.pool]
    facts = _guarded(desk.runner_facts(runner, beside), pool)
    payload = JobPayload.parse(raw)
    began = time.monotonic()
    try:
        if job.prologue is not None and payload.secrets and _runs_there(desk, follows, job, lease):
            return
        machine = desk.machine_facts(channel, lease.instance, facts.user)
        about = _About(payload=payload, runner=facts, machine=machine, lease=lease_facts(lease, pool, beside))
        resolved, rendered = _rendered(desk, about)
    except JobRefused as exc:
        ending.end_unstarted(desk, job, _outcome_of(exc), heading=exc.heading)
        return
    except AgentError as exc:
        _refused(desk, job, lease, exc)
        return
    except MachineError as exc:
        _not_reached(desk, job, lease, str(exc))
        return
    prologue = job.prologue
    if prologue is None:
        row, _ = desk.instance(lease.instance)
        prologue = trace_lines.prologue(
            runner=facts,
            rendered=rendered,
            machine=machine,
            address=_shown(row.address, pool),
            at=desk.now(),
            resolved=resolved,
        )
        if not _freeze(desk, job, prologue):
            return
    ending.lay_prologue(desk, job.key, prologue)
    job_file = charge_prologue(rendered.job_file, len(prologue))
    job_file = with_urls(
        job_file, rendered.caches, lambda: desk.cache_store(runner), now=desk.now(), remaining_s=remaining_s
    )
    left_s = max(1.0, remaining_s - (time.monotonic() - began))
    _send(desk, follows, channel, job, lease, prologue=prologue, job_file=job_file, remaining_s=left_s)


class _About(TypedDict):
    """What a job file is made of, beside secrets."""

    payload: JobPayload
    runner: RunnerFacts
    machine: MachineFacts
    lease: LeaseFacts


def _rendered(desk: Desk, about: _About) -> tuple[Resolved | None, Rendered]:
    """The job file, and what came of the secrets that it holds; raises `JobRefused`."""
    if not about["payload"].secrets:
        return None, render(**about)
    refuse_unsupported(about["payload"])  # before anything is asked for
    resolved = _resolved(desk, about)
    return resolved, render(**about, secrets=resolved.variables)


def _resolved(desk: Desk, about: _About) -> Resolved:
    variables, flags = variables_of(**about)
    facts, payload = about["runner"], about["payload"]
    found = secrets.resolve(payload, variables, flags=flags, ca=facts.tls_ca, fetch=desk.fetch_secret, now=desk.now)
    if found.refusal is not None:
        found.refusal.heading = trace_lines.heading(
            runner=facts,
            at=desk.now(),
            timestamps=flags["FF_TIMESTAMPS"],
            sections=payload.features.trace_sections,
            resolved=found,
        )
        raise found.refusal
    log.info("secrets_fetched", job_id=payload.id, secrets=len(found.variables), took_s=round(found.took_s, 3))
    return found


def _runs_there(desk: Desk, follows: Follows, job: Job, lease: Lease) -> bool:
    """Whether the agent has taken the job already; then it is followed. Raises `MachineError` when nobody knows."""
    try:
        follow_from(desk, follows, job, lease=lease.lease_id, instance=lease.instance)
    except AgentError as exc:
        follows.drop(lease.lease_id)
        if exc.slug_of_agent == "unknown_lease":
            return False
        raise
    except MachineError:
        follows.drop(lease.lease_id)
        raise
    desk.store.write(lambda tx: _running(tx, job, lease))
    log.info("job_started", job_id=job.gitlab_job_id, job_key=job.key, instance=lease.instance)
    return True


def _freeze(desk: Desk, job: Job, prologue: bytes) -> bool:
    """Write the prologue down, unless the job is not to be started any more."""

    def write(tx: Tx) -> bool:
        now = jobs.job(tx, job.key)
        if now is None or now.state is not JobState.STARTING or now.lease != job.lease:
            return False
        return jobs.update_job(tx, job.key, job.epoch, prologue=prologue)

    return desk.store.write(write)


def _outcome_of(refusal: JobRefused) -> Outcome:
    return Outcome(
        state="failed", failure_reason=str(refusal.reason), exit_code=refusal.exit_code, message=refusal.message
    )


def _guarded(facts: RunnerFacts, pool: Pool) -> RunnerFacts:
    """On this host jobs run neither as ourselves nor as root, unless a person allowed it."""
    if pool.settings.kind is not PoolKind.HOST or pool.settings.fleet.allow_same_user:
        return facts
    if not facts.user:  # whom the agent runs as: ourselves, or root
        return replace(facts, reads_secrets=True)
    try:
        uid = pwd.getpwnam(facts.user).pw_uid
    except KeyError:  # the agent refuses it in its own words
        return facts
    return replace(facts, reads_secrets=uid in (0, os.geteuid()))


def _shown(address: Any, pool: Any) -> tuple[str, ...]:
    """The addresses that the job's log may show."""
    shown = []
    if pool.settings.log_internal_ip and address.get("internal"):
        shown.append(f"internal ip: {address['internal']}")
    if pool.settings.log_external_ip and address.get("external"):
        shown.append(f"external ip: {address['external']}")
    return tuple(shown)


def _load(tx: Tx, work: Work) -> tuple[Job, Lease, bytes, float] | None:
    job = jobs.job(tx, work.key)
    lease = None if job is None or job.lease is None else leases.lease(tx, job.lease)
    if job is None or lease is None or job.state is not JobState.STARTING or job.epoch != work.epoch:
        return None
    return job, lease, jobs.payload_of(tx, work.key), max(1.0, (job.deadline_at - tx.now).total_seconds())


def _send(
    desk: Desk,
    follows: Follows,
    channel: AgentChannel,
    job: Job,
    lease: Lease,
    *,
    prologue: bytes,
    job_file: dict[str, Any],
    remaining_s: float,
) -> None:
    body = json.dumps(job_file).encode()
    follow = Follow(key=job.key, epoch=job.epoch, lease=lease.lease_id, instance=lease.instance, shift=len(prologue))
    try:
        channel.request("start", START_S, body=body, lease=lease.lease_id, epoch=job.epoch, remaining_s=remaining_s)
        follows.add(follow)
        offset = max(0, desk.spool.size(job.key) - len(prologue))
        channel.request("follow", START_S, lease=lease.lease_id, epoch=job.epoch, offset=offset)
        follow.settled = True
    except AgentError as exc:
        follows.drop(lease.lease_id)
        _refused(desk, job, lease, exc)
        return
    except MachineError as exc:
        follows.drop(lease.lease_id)
        log.warning("start_in_doubt", job_key=job.key, instance=lease.instance, error=str(exc))
        return
    desk.store.write(lambda tx: _running(tx, job, lease))
    log.info("job_started", job_id=job.gitlab_job_id, job_key=job.key, instance=lease.instance)


def _running(tx: Tx, job: Job, lease: Lease) -> None:
    moved = jobs.move_job(
        tx,
        job.key,
        job.epoch,
        JobState.RUNNING,
        stimulus="started",
        reason=f"the agent of {lease.instance} has taken it",
        only_from=[JobState.STARTING],
    )
    if moved:
        leases.move_lease(
            tx, lease.lease_id, LeaseState.RUNNING, stimulus="started", reason="the agent has taken the job"
        )


def _not_reached(desk: Desk, job: Job, lease: Lease, reason: str) -> None:
    """No channel: a job that was never sent may go elsewhere; one that may have been sent waits for its machine."""
    log.warning("machine_not_reached", job_key=job.key, instance=lease.instance, error=reason)
    if job.prologue is None:
        _move(desk, job, lease, reason)


def _refused(desk: Desk, job: Job, lease: Lease, error: AgentError) -> None:
    log.warning("start_refused", job_key=job.key, instance=lease.instance, slug=error.slug_of_agent, error=str(error))
    if error.slug_of_agent == "stale_epoch":
        return  # another manager goes on with this job
    if error.slug_of_agent in OURS:
        reason = FailureReason.RUNNER_CONFIGURATION_ERROR
        ending.end_unstarted(desk, job, Outcome(state="failed", failure_reason=str(reason), message=str(error)))
        return
    _move(desk, job, lease, str(error))


def _move(desk: Desk, job: Job, lease: Lease, reason: str) -> None:
    if job.moves >= MOVES:
        ending.end_unstarted(desk, job, _no(f"{MOVES + 1} machines failed before it could start; the last: {reason}"))
        return
    desk.spool.begin_again(job.key)
    desk.store.write(lambda tx: change_machine(tx, job.key, job.epoch, lease.lease_id, lease.instance, reason=reason))
    desk.hint("plan", "execute")


def _no(message: str) -> Outcome:
    return Outcome(state="failed", failure_reason=str(FailureReason.RUNNER_SYSTEM_FAILURE), message=message)
