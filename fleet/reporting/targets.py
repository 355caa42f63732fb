"""Hands jobs to the reporter: from a job's row and payload to where and as whom it is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fleet.gitlab.client import GitLab, Info
from fleet.gitlab.errors import PayloadError
from fleet.gitlab.payload import JobPayload
from fleet.model.job import Job, Outcome
from fleet.reporting.entry import Target
from fleet.reporting.reporter import Reporter
from fleet.store.book import Book, Runner
from fleet.store.payloads import unpack

TRUE = {"1", "true", "yes", "on"}


@dataclass(slots=True, kw_only=True)
class Reports:
    """The reporter as execution sees it.

    Attributes:
        server_of: the client for a runner's GitLab.
        info_of: the `info` object of a runner.
    """

    reporter: Reporter
    book: Book
    server_of: Callable[[Runner], GitLab]
    info_of: Callable[[Runner], Info]

    def watch(self, job: Job, payload: bytes) -> None:
        """Report this job from now on; a job whose runner nobody knows cannot be reported yet."""
        runner = self.book.runners.get(job.runner)
        if runner is None:
            return
        reasons, debug = _wishes(unpack(payload)[0])
        target = Target(
            key=job.key,
            epoch=job.epoch,
            job_id=job.gitlab_job_id,
            token=job.token,
            server=self.server_of(runner),
            lane=f"gitlab:{runner.settings.url}",
            info=self.info_of(runner),
            runner=runner.short_token,
            debug_trace=debug and not runner.settings.debug_trace_disabled,
            failure_reasons=reasons,
            retry_limit=runner.settings.job_status_final_update_retry_limit,
        )
        self.reporter.watch(target, sent=job.sent_bytes)

    def grew(self, key: str) -> None:
        """There is more of its trace."""
        self.reporter.grew(key)

    def finish(self, key: str, outcome: Outcome, *, incomplete: bool = False) -> None:
        """It has ended and its spool is whole."""
        self.reporter.finish(key, outcome, incomplete=incomplete)

    def watched(self) -> set[str]:
        """The jobs being reported."""
        return self.reporter.watched()

    def drop(self, key: str) -> None:
        """Say nothing more of it."""
        self.reporter.drop(key)


def _wishes(raw: bytes) -> tuple[tuple[str, ...], bool]:
    """The failure reasons that the server understands, and whether the job is being debugged."""
    try:
        payload = JobPayload.parse(raw)
    except PayloadError:
        return (), False
    debug = next((each.value for each in reversed(payload.variables) if each.key == "CI_DEBUG_TRACE"), "")
    return tuple(payload.features.failure_reasons), debug.strip().lower() in TRUE
