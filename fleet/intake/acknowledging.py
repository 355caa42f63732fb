"""Takes a job in: its payload into the store, then the acknowledgement to GitLab, then it waits for a machine.

From the commit on the job survives the manager (law 4). Before it, or before the acknowledgement arrives, the job is
GitLab's to hand out again; a job found here that was never acknowledged is acknowledged now, and dropped when GitLab
says that it is no longer ours.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from fleet.gitlab.client import GitLab, Info
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.outcomes import BrokenOffer, JobOffer, PatchOutcome, UpdateOutcome, UpdateResult
from fleet.model.ids import ManagerId
from fleet.model.lifecycle import JobState
from fleet.store import jobs, leases
from fleet.store.book import Book, Runner
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.payloads import pack
from fleet.store.worklist import work_of

log = structlog.get_logger(__name__)
LANE_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What one activation saw and did."""

    received: int = 0
    handed_out: int = 0


@dataclass(slots=True, kw_only=True)
class Acknowledger:
    """Takes jobs in, and acknowledges those that a killed manager left unacknowledged."""

    store: Store
    book: Book
    me: ManagerId
    submit: Callable[..., bool]
    hint: Callable[..., None]
    server_of: Callable[[Runner], GitLab]
    info_of: Callable[[Runner], Info]
    may_speak: Callable[[], bool]

    def activate(self) -> Acknowledged:
        """Acknowledge what was received and has waited for it for a while."""
        found, now = self.store.read(lambda tx: (work_of(tx, self.me), tx.now))
        late = [
            work for work in found if work.state is JobState.RECEIVED and now - work.state_at > timedelta(seconds=5)
        ]
        handed = 0
        for work in late:
            runner = self.book.runners.get(work.runner)
            if runner is None or not self.may_speak():
                continue
            handed += self.submit(
                f"gitlab:{runner.settings.url}",
                f"ack:{work.key}",
                lambda key=work.key, runner=runner: self._again(key, runner),
                timeout_s=LANE_S,
                width=24,
            )
        return Acknowledged(received=len(late), handed_out=handed)

    def _again(self, key: str, runner: Runner) -> None:
        job = self.store.read(lambda tx: jobs.job(tx, key))
        if job is not None and job.state is JobState.RECEIVED:
            self._acknowledge(job.key, job.epoch, job.gitlab_job_id, job.token, runner)

    def take(
        self, offer: JobOffer, runner: Runner, reservation_id: str, *, session: Mapping[str, str] | None = None
    ) -> bool:
        """Commit the job that a poll brought, with the poll's session for a terminal, and acknowledge it.

        False when it could not be kept.
        """
        session = session or {}
        payload, key = offer.payload, secrets.token_hex(12)
        beside = {
            "ca": offer.tls.ca,
            "cert": offer.tls.cert,
            "key": offer.tls.key,
            "request_id": offer.request_id,
            "session_url": session.get("url", ""),
            "session_authorization": session.get("authorization", ""),
        }
        packed = pack(offer.raw, beside)

        def receive(tx: Tx) -> None:
            jobs.receive(
                tx,
                job_key=key,
                runner_key=runner.key,
                pool=runner.pool,
                url=runner.settings.url,
                gitlab_job_id=payload.id,
                project_id=payload.job_info.project_id or 0,
                name=payload.job_info.name or "",
                token=payload.token,
                payload=packed,
                deadline_at=tx.now + timedelta(seconds=payload.runner_info.timeout_s),
                owner=self.me,
            )
            leases.owe(
                tx,
                reservation_id,
                pool=runner.pool,
                runner_key=runner.key,
                manager_id=self.me,
                job_key=key,
            )

        try:
            self.store.write(receive)
        except StoreError as exc:
            # not acknowledged, so GitLab hands it out again
            log.error("job_not_kept", job_id=payload.id, error=str(exc))
            return False
        log.info(
            "job_received",
            job_id=payload.id,
            job_key=key,
            runner=runner.settings.name,
            project=payload.job_info.project_id,
        )
        try:
            self._acknowledge(key, 1, payload.id, payload.token, runner)
        except StoreError as exc:
            # the job is kept, and its reservation with it: the next activation acknowledges it again
            log.warning("acknowledgement_not_kept", job_id=payload.id, job_key=key, error=str(exc))
        return True

    def _acknowledge(self, key: str, epoch: int, job_id: int, token: str, runner: Runner) -> None:
        result = self.server_of(runner).update_job(
            job_id=job_id, token=token, info=self.info_of(runner), state="running", runner=runner.short_token
        )
        self.store.write(lambda tx: _settle(tx, key, epoch, result))
        self.hint("plan", "execute")

    def refuse(self, offer: BrokenOffer, runner: Runner) -> None:
        """A job whose description cannot be read is failed with what is known of it; its log and ours say why.

        It is acknowledged first, for GitLab takes no end of a job that nobody has. To say nothing would give it back
        where jobs are acknowledged in two phases, but leave it hanging for an hour where they are not.
        """
        log.error("payload_unreadable", job_id=offer.job_id, error=str(offer.error))
        server = self.server_of(runner)
        about: dict[str, Any] = {"job_id": offer.job_id, "token": offer.token, "runner": runner.short_token}
        answer = server.update_job(**about, info=self.info_of(runner), state="running")
        if answer.outcome in (UpdateOutcome.ABORT, UpdateOutcome.GONE):
            return
        said = f"ERROR: Job failed (system failure): {offer.error}. Nothing of the job was run.\n".encode()
        sent = server.patch_trace(**about, start=0, data=said).outcome is PatchOutcome.ADVANCED
        server.update_job(
            **about,
            info=self.info_of(runner),
            state="failed",
            failure_reason=str(FailureReason.RUNNER_SYSTEM_FAILURE),
            crc32=zlib.crc32(said) if sent else None,
            bytesize=len(said) if sent else None,
        )


def _settle(tx: Tx, key: str, epoch: int, result: UpdateResult) -> None:
    """What GitLab's answer to the acknowledgement makes of the job; no answer means: go on."""
    only = [JobState.RECEIVED]
    if result.outcome in (UpdateOutcome.ABORT, UpdateOutcome.GONE):
        reason = f"GitLab took it back before it began: {result.job_status or result.reason}"
        if jobs.move_job(tx, key, epoch, JobState.ABANDONED, stimulus="taken", reason=reason, only_from=only):
            leases.forget_demand(tx, key)
        return
    told = "GitLab knows that it is here" if result.outcome is UpdateOutcome.DONE else f"not told: {result.reason}"
    if not jobs.move_job(tx, key, epoch, JobState.WAITING, stimulus="acknowledged", reason=told, only_from=only):
        return
    if result.cancel_requested:
        jobs.update_job(tx, key, epoch, stop="cancel", stop_reason="GitLab says that the job is being cancelled")
