"""Tells GitLab of jobs: trace pieces while they run, touches while they are silent, and the end until it is accepted.

The spool is read, never waited for. A job's machine is no concern here: it may be released long before GitLab, after
an outage of hours, hears the end. Every call's answer may carry news for the job (a cancel, an abort), which goes out
through `Listener`; acting on it is left to execution.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from fleet.gitlab.outcomes import PatchOutcome, PatchResult, UpdateOutcome, UpdateResult
from fleet.model.job import Outcome
from fleet.reporting.agenda import Agenda
from fleet.reporting.entry import INTERVAL_S, TOUCH_S, Entry, Target
from fleet.reporting.finale import finale
from fleet.sdk import FleetError
from fleet.store.spool import Spool

log = structlog.get_logger(__name__)
PIECE = 1 << 20
FIRST_WAIT_S = 1.0  # the prologue waits this long for the job's first output to share its PATCH
BROKEN_S = 5.0  # until the next try after an error of our own
WIDTH = 24  # calls in the air per GitLab server


class Listener(Protocol):
    """Who wants to know what GitLab says, and what became of a job."""

    def stop_requested(self, key: str, epoch: int, how: str, reason: str) -> None:
        """GitLab wants the job cancelled (`cancel`: the script ends) or aborted (`abort`: everything ends)."""

    def trace_sent(self, sent: list[tuple[str, int, int, int]]) -> None:
        """GitLab has so much of these traces: (key, epoch, bytes, CRC-32)."""

    def reported(self, key: str, epoch: int, how: str, reason: str) -> None:
        """GitLab knows the end (`accepted`), took the job away (`taken`), or never will (`given_up`)."""


class Reporter:
    """Reports jobs until their end is known. Thread-safe."""

    def __init__(
        self,
        *,
        spool: Spool,
        listener: Listener,
        submit: Callable[..., bool],
        may_speak: Callable[[], bool],
        touch_s: float = TOUCH_S,
    ) -> None:
        self.spool = spool
        self.listener = listener
        self._submit = submit
        self._may_speak = may_speak
        self._touch_s = touch_s
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._agenda = Agenda(self._work)

    def watch(self, target: Target, *, sent: int) -> None:
        """Report this job from now on; `sent` is what GitLab is believed to have."""
        now = time.monotonic()
        with self._lock:
            if target.key in self._entries:
                self._entries[target.key].target = target
                return
            self._entries[target.key] = Entry(target=target, sent=sent, heard_at=now)
        self._agenda.put(target.key, now + FIRST_WAIT_S)

    def grew(self, key: str) -> None:
        """There is more of the trace in the spool."""
        entry = self._entries.get(key)
        if entry is not None:
            self._agenda.put(key, max(entry.piece_at, time.monotonic()))

    def finish(self, key: str, outcome: Outcome, *, incomplete: bool = False) -> None:
        """The job has ended and its spool is whole: bring it to its end at GitLab."""
        entry = self._entries.get(key)
        if entry is None or entry.outcome is not None:
            return
        entry.incomplete = incomplete
        entry.interval_s = INTERVAL_S  # the idle interval of a minute must not delay the end
        entry.outcome = outcome
        self._agenda.put(key, time.monotonic())

    def drop(self, key: str) -> None:
        """Say nothing more about this job."""
        with self._lock:
            entry = self._entries.pop(key, None)
        if entry is not None:
            entry.ended = True
        self._agenda.drop(key)

    def watched(self) -> set[str]:
        """The jobs being reported."""
        with self._lock:
            return set(self._entries)

    def progress(self) -> list[tuple[str, int, int, int]]:
        """What GitLab has got since this was asked last, for the store."""
        changed = []
        for entry in list(self._entries.values()):
            if entry.sent != entry.noted and entry.outcome is None:
                entry.noted = entry.sent
                changed.append(self.sent_of(entry))
        return changed

    def sent_of(self, entry: Entry) -> tuple[str, int, int, int]:
        """(key, epoch, bytes, CRC-32) of what GitLab has of a trace."""
        key = entry.target.key
        return key, entry.target.epoch, entry.sent, self.spool.crc(key, entry.sent)

    def close(self) -> None:
        """Stop speaking; what is not said is said after the next start."""
        self._agenda.close()

    def _work(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        if not self._submit(entry.target.lane, f"report:{key}", lambda: self._turn(entry), timeout_s=900, width=WIDTH):
            self._agenda.put(key, time.monotonic() + 0.05)  # its last call is still in the air

    def _turn(self, entry: Entry) -> None:
        if entry.unkept is not None:
            self._conclude(entry, entry.unkept)
            return
        if entry.ended:
            return
        if not self._may_speak():  # our claims have run out: somebody else may be speaking for this job
            self._agenda.put(entry.target.key, time.monotonic() + 1.0)
            return
        wait_s: float | None = BROKEN_S
        try:
            wait_s = finale(self, entry) if entry.outcome is not None else self._tick(entry)
        finally:  # whatever went wrong: a job is never forgotten
            if wait_s is not None and not entry.ended:
                self._agenda.put(entry.target.key, time.monotonic() + wait_s)

    def _tick(self, entry: Entry) -> float | None:
        """What is due while the job runs; returns seconds until the next time, which `grew` may shorten."""
        size = self.spool.size
        key, now = entry.target.key, time.monotonic()
        if now < entry.not_before:
            return entry.not_before - now
        if size(key) > entry.sent and entry.piece_at <= now and not self._advance(entry):
            return None
        if self._touch_at(entry) <= time.monotonic() and not self._is_heard(entry):
            return None
        if entry.outcome is not None:  # it ended while we spoke
            return 0.0
        next_at = min(self._touch_at(entry), entry.piece_at) if size(key) > entry.sent else self._touch_at(entry)
        return max(0.0, next_at - time.monotonic())

    def _touch_at(self, entry: Entry) -> float:
        return max(entry.heard_at + self._touch_s, entry.not_before)

    def _advance(self, entry: Entry) -> bool:
        """Send a piece, once more where GitLab says where to go on; False when the job was taken away."""
        result = self.patch(entry)
        if result is not None and result.outcome is PatchOutcome.REOFFSET:
            result = self.patch(entry)
        if result is None:
            return False
        if result.outcome in (PatchOutcome.FAILED, PatchOutcome.REOFFSET):
            _wait(entry, result)
        return True

    def _is_heard(self, entry: Entry) -> bool:
        """Tell GitLab that the job lives; False when it was taken away."""
        result = self.touch(entry)
        if result is not None and result.outcome is UpdateOutcome.FAILED:
            _wait(entry, result)
        return result is not None

    def patch(self, entry: Entry) -> PatchResult | None:
        """Send the next piece; None when GitLab took the job away."""
        target = entry.target
        data = self.spool.read(target.key, entry.sent, PIECE)
        if not data:
            return PatchResult(outcome=PatchOutcome.ADVANCED, status=202, offset=entry.sent)
        result = target.server.patch_trace(
            job_id=target.job_id,
            token=target.token,
            start=entry.sent,
            data=data,
            debug_trace=target.debug_trace,
            runner=target.runner,
        )
        now = time.monotonic()
        if result.outcome is PatchOutcome.ABORT:
            self._taken(entry, result.job_status, result.reason)
            return None
        self.heed(entry, result)
        if result.outcome in (PatchOutcome.ADVANCED, PatchOutcome.REOFFSET) and result.offset is not None:
            entry.sent = result.offset
            entry.heard_at = now
        if result.outcome in (PatchOutcome.ADVANCED, PatchOutcome.NOT_FOUND):
            entry.patched_at = now
            entry.was_full = len(data) == PIECE
        if result.outcome is PatchOutcome.NOT_FOUND:
            entry.sent += len(data)  # GitLab wants no trace of this job; the final update says the rest
        return result

    def touch(self, entry: Entry) -> UpdateResult | None:
        """Tell GitLab that a job lives, and how much of its trace was sent; None when GitLab took the job away."""
        target = entry.target
        result = target.server.update_job(
            job_id=target.job_id,
            token=target.token,
            info=target.info,
            state="running",
            crc32=self.spool.crc(target.key, entry.sent) if entry.sent else None,
            bytesize=entry.sent or None,
            runner=target.runner,
        )
        if result.outcome in (UpdateOutcome.ABORT, UpdateOutcome.GONE):
            self._taken(entry, result.job_status, result.reason)
            return None
        self.heed(entry, result)
        if result.outcome is not UpdateOutcome.FAILED:
            entry.heard_at = time.monotonic()
        return result

    def heed(self, entry: Entry, result: PatchResult | UpdateResult) -> None:
        """Take the news that any answer may carry."""
        if result.update_interval_s is not None:
            entry.interval_s = float(result.update_interval_s)
        if result.cancel_requested and not entry.cancel_told and entry.outcome is None:
            try:
                self.listener.stop_requested(
                    entry.target.key, entry.target.epoch, "cancel", "GitLab says that the job is being cancelled"
                )
                entry.cancel_told = True
            except FleetError as exc:  # GitLab's next answer says so again
                log.warning("cancel_not_kept", job_key=entry.target.key, error=str(exc))

    def _taken(self, entry: Entry, job_status: str | None, reason: str) -> None:
        target = entry.target
        told = f"GitLab took job {target.job_id} away: {job_status or reason or 'it is not running any more'}"
        log.info("job_taken_away", job_key=target.key, job_id=target.job_id, job_status=job_status)
        if entry.outcome is not None:
            self.end(entry, "taken", told)
            return
        self._conclude(entry, lambda: self.listener.stop_requested(target.key, target.epoch, "abort", told))

    def end(self, entry: Entry, how: str, reason: str) -> None:
        """The end is known, or never will be."""
        self._conclude(entry, lambda: self.listener.reported(entry.target.key, entry.target.epoch, how, reason))

    def _conclude(self, entry: Entry, keep: Callable[[], None]) -> None:
        """First the row, then we forget: in between nobody may begin to report this job anew.

        While the row cannot be written (a full disk) we say nothing more to GitLab, and try the row again.
        """
        entry.ended, entry.unkept = True, keep
        try:
            keep()
            entry.unkept = None
        finally:
            if entry.unkept is None:
                self.drop(entry.target.key)
            else:
                self._agenda.put(entry.target.key, time.monotonic() + BROKEN_S)


def _wait(entry: Entry, result: PatchResult | UpdateResult) -> None:
    """After a call that failed nothing is sent for an interval, or for as long as GitLab asked."""
    entry.not_before = time.monotonic() + max(entry.interval_s, result.retry_after_s or 0.0)
