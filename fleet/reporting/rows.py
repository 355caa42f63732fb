"""What GitLab says becomes rows: a stop that execution finds, how far a trace has got, the end of a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from fleet.model.lifecycle import JobState
from fleet.store import jobs
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreUnavailable
from fleet.store.spool import Spool

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class RowListener:
    """Listens to the reporter for one manager."""

    store: Store
    spool: Spool
    hint: Callable[..., None]

    def stop_requested(self, key: str, epoch: int, how: str, reason: str) -> None:
        """Note the stop; an abort beats a cancel, and neither is ever taken back."""

        def note(tx: Tx) -> bool:
            found = jobs.job(tx, key)
            if found is None or found.epoch != epoch or found.stop in (how, "abort"):
                return False
            if how == "abort" and found.state is JobState.FINISHING:  # it ended while GitLab took it away
                return jobs.move_job(tx, key, epoch, JobState.ABANDONED, stimulus="taken", reason=reason)
            if jobs.update_job(tx, key, epoch, stop=how, stop_reason=reason):
                tx.journal("job", key, how, reason, job_key=key)
            return False

        if self.store.write(note):
            self.spool.remove(key)
        log.info("job_stop_requested", job_key=key, how=how, reason=reason)
        self.hint("execute")

    def trace_sent(self, sent: list[tuple[str, int, int, int]]) -> None:
        """Remember how far each trace has got at GitLab."""
        if sent:
            try:
                self.store.write(lambda tx: jobs.note_sent(tx, sent))
            except StoreUnavailable as exc:
                # a stale number costs one 416 after a restart, no more
                log.warning("trace_progress_not_kept", error=str(exc))

    def reported(self, key: str, epoch: int, how: str, reason: str) -> None:
        """The job is over; nobody needs its spool any more."""
        done = self.store.write(
            lambda tx: jobs.move_job(
                tx, key, epoch, JobState.FINISHED, stimulus=how, reason=reason, only_from=[JobState.FINISHING]
            )
        )
        level = log.error if how == "given_up" else log.info
        level("job_reported", job_key=key, how=how, reason=reason)
        if done:
            self.spool.remove(key)
            if self.store.shared:  # its machine may have been waiting for this
                self.hint("execute")
