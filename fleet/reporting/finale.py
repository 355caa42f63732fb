"""The end of a job at GitLab: the rest of its trace, then the final update until it is accepted.

202 is repeated without counting, 412 sends the whole trace again, 416 goes on where GitLab stands. An answer that
refuses counts as a failed try, up to `job_status_final_update_retry_limit` tries. No answer and 5xx do not count:
an outage of GitLab, however long, must not lose a result; those are tried for `PATIENCE_S`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from fleet.gitlab.failure_reasons import map_reason
from fleet.gitlab.outcomes import PatchOutcome, UpdateOutcome, UpdateResult
from fleet.reporting.entry import Entry

if TYPE_CHECKING:
    from fleet.reporting.reporter import Reporter

log = structlog.get_logger(__name__)
LONGEST_S = 3600.0
OUTAGE_LONGEST_S = 30.0
PATIENCE_S = 24 * 3600.0
RESENDS = 5
ACCEPTED = 200
REOFFSETS = 3


def finale(reporter: Reporter, entry: Entry) -> float | None:
    """One step of the end; returns seconds until the next, or None when there is none."""
    key = entry.target.key
    if entry.sent < reporter.spool.size(key):
        return _rest_of_trace(reporter, entry)
    if entry.sent != entry.noted:
        # after a kill between the update and its row, the trace must not be offered again
        entry.noted = entry.sent
        reporter.listener.trace_sent([reporter.sent_of(entry)])
    return _final_update(reporter, entry)


def _rest_of_trace(reporter: Reporter, entry: Entry) -> float | None:
    key, moved = entry.target.key, 0
    while entry.sent < reporter.spool.size(key):
        result = reporter.patch(entry)
        if result is None:
            return None
        if result.outcome is PatchOutcome.FAILED:
            return _failed(reporter, entry, result.status, result.reason, result.retry_after_s)
        moved += result.outcome is PatchOutcome.REOFFSET
        if moved > REOFFSETS:
            return _failed(reporter, entry, result.status, result.reason, None)
    return 0.0


def _final_update(reporter: Reporter, entry: Entry) -> float | None:
    target, outcome = entry.target, entry.outcome
    assert outcome is not None
    # where GitLab has more than there is, it must hear so: it then answers 412
    whole, size = not entry.incomplete, reporter.spool.size(target.key)
    result: UpdateResult = target.server.update_job(
        job_id=target.job_id,
        token=target.token,
        info=target.info,
        state=outcome.state,
        failure_reason=map_reason(outcome.failure_reason, target.failure_reasons)
        if outcome.state == "failed"
        else None,
        exit_code=outcome.exit_code or None,
        crc32=reporter.spool.crc(target.key, size) if whole else None,
        bytesize=size if whole else None,
        runner=target.runner,
    )
    reporter.heed(entry, result)
    match result.outcome:
        case UpdateOutcome.DONE | UpdateOutcome.ABORT if result.status == ACCEPTED:
            # with `Job-Status: failed` when that is what we have just said
            reporter.end(entry, "accepted", "GitLab accepted the final update")
            return None
        case UpdateOutcome.DONE | UpdateOutcome.ABORT | UpdateOutcome.GONE:
            reporter.end(entry, "taken", f"GitLab knows an end of this job: {result.job_status or result.reason}")
            return None
        case UpdateOutcome.ACCEPTED:
            return entry.interval_s
        case UpdateOutcome.RESEND:
            return _resend(reporter, entry, result)
        case UpdateOutcome.FAILED:
            return _failed(reporter, entry, result.status, result.reason, result.retry_after_s)


def _resend(reporter: Reporter, entry: Entry, result: UpdateResult) -> float | None:
    entry.resent += 1
    log.warning("trace_mismatched", job_id=entry.target.job_id, job_key=entry.target.key, times=entry.resent)
    if entry.resent > RESENDS:
        return _failed(reporter, entry, result.status, "the trace was refused again and again", None)
    entry.sent = 0
    return 0.0


def _failed(reporter: Reporter, entry: Entry, status: int, reason: str, retry_after_s: float | None) -> float | None:
    answered = 0 < status < 500 and status not in (408, 429)
    if answered:
        entry.tries += 1
        if entry.tries >= entry.target.retry_limit:
            reporter.end(entry, "given_up", f"GitLab refused the end of the job {entry.tries} times: {reason}")
            return None
        return max(_backoff_s(entry.tries, LONGEST_S), retry_after_s or 0)
    entry.silent_tries += 1
    if entry.silent_tries * OUTAGE_LONGEST_S > PATIENCE_S:
        reporter.end(entry, "given_up", f"GitLab was not to be reached for a day: {reason}")
        return None
    return max(_backoff_s(entry.silent_tries, OUTAGE_LONGEST_S), retry_after_s or 0)


def _backoff_s(tries: int, longest_s: float) -> float:
    """1, 2, 4 seconds and so on; after hours of them the power itself would not fit into a number."""
    return min(2.0 ** min(tries - 1, 30), longest_s)
