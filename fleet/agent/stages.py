"""The stage matrix: which stage runs, and what its end means for the job. Pure.

Rule: this is GitLab Runner's matrix as docs/reference/agent-frames.md tells it. `Progress.admits` asks,
`Progress.record` tells; running is left to `supervise.py`.
"""

from __future__ import annotations

PREPARE, GET_SOURCES, RESTORE_CACHE, DOWNLOAD_ARTIFACTS = (
    "prepare",
    "get_sources",
    "restore_cache",
    "download_artifacts",
)
STEP, AFTER_SCRIPT = "step", "after_script"
ARCHIVE_CACHE, UPLOAD_ARTIFACTS, CLEANUP = "archive_cache", "upload_artifacts", "cleanup"

BEFORE_STEPS = frozenset({PREPARE, GET_SOURCES, RESTORE_CACHE, DOWNLOAD_ARTIFACTS})
UPLOADS = frozenset({ARCHIVE_CACHE, UPLOAD_ARTIFACTS})
KINDS = BEFORE_STEPS | UPLOADS | {STEP, AFTER_SCRIPT, CLEANUP}

# A failure of the steps, or of what comes before them, is reported rather than one of the cache or the artifacts.
WEIGHT = {AFTER_SCRIPT: 1, ARCHIVE_CACHE: 2, UPLOAD_ARTIFACTS: 3}

EXITED, FAILED_TO_START, TIMED_OUT, JOB_TIMED_OUT, SCRIPT_TIMED_OUT = "exit", "not_started", "stage", "job", "script"
CANCELED, ABORTED, BROKEN = "cancel", "abort", "broken"


class Ending:
    """How a stage ended: by itself, or because it was ended; and what is said about it."""

    def __init__(
        self, how: str, code: int = 0, message: str = "", reason: str | None = None, *, is_vanished: bool = False
    ) -> None:
        self.how = how
        self.code = code
        self.message = message
        self.reason = reason  # GitLab's, where the ending itself says it
        self.is_vanished = is_vanished  # what the stage ran in is gone

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong."""
        return self.how == EXITED and self.code == 0


class Failure:
    """A failure as it is reported."""

    def __init__(self, kind: str, stage: str, reason: str | None, code: int, message: str) -> None:
        self.kind = kind
        self.stage = stage
        self.reason = reason
        self.code = code
        self.message = message


class Progress:
    """What has become of a job so far."""

    def __init__(self) -> None:
        self.failure = None
        self.steps_reached = False
        self.is_canceled = False
        self.is_over = False  # no further stage but cleanup
        self.outcome_of_steps = "success"

    def job_status(self, kind: str) -> str:
        """CI_JOB_STATUS in the environment of a stage of this kind."""
        if kind in BEFORE_STEPS or kind == STEP:
            return "running"
        return self.outcome_of_steps

    def admits(self, stage: dict) -> bool:
        """Whether the stage runs."""
        kind = stage["kind"]
        if kind == CLEANUP:
            return True
        if self.is_over:
            return False
        if kind in BEFORE_STEPS:
            return self.failure is None
        if kind == STEP:
            self.steps_reached = self.steps_reached or self.failure is None
            return self.failure is None
        if kind == AFTER_SCRIPT:
            return self.steps_reached or self.failure is None
        return self._suits(stage.get("on", "success"))

    def _suits(self, wanted: str) -> bool:
        is_failed = self.outcome_of_steps != "success"
        return wanted == "always" or (wanted == "failure") == is_failed

    def record(self, stage: dict, ending: Ending) -> None:
        """Take note of how a stage ended."""
        kind = stage["kind"]
        if ending.how in {JOB_TIMED_OUT, ABORTED}:
            self.is_over = True
        if ending.how == CANCELED:
            self.is_canceled = True
            self.is_over = self.is_over or kind in BEFORE_STEPS
        if ending.is_good or kind in {CLEANUP, ARCHIVE_CACHE}:
            self._note_kept_failure(ending)
            return
        if kind == PREPARE or (kind == GET_SOURCES and ending.how == TIMED_OUT):
            self.is_over = True
        if kind in {AFTER_SCRIPT, RESTORE_CACHE} and stage.get("ignore_errors") and not self.is_over:
            return
        self._fail(kind, stage, ending)

    def _note_kept_failure(self, ending: Ending) -> None:
        """Even a stage whose failure is ignored may have met the end of the job's time."""
        if ending.how == JOB_TIMED_OUT:
            self._fail(STEP, {"name": "job"}, ending)

    def _fail(self, kind: str, stage: dict, ending: Ending) -> None:
        failure = Failure(kind, stage["name"], reason_of(stage, ending), ending.code, ending.message)
        if self.failure is None or weight(failure.kind) < weight(self.failure.kind) or ending.how == JOB_TIMED_OUT:
            self.failure = failure
        if kind in BEFORE_STEPS or kind == STEP:
            self.outcome_of_steps = _status_after(ending)
        elif self.outcome_of_steps == "success":
            self.outcome_of_steps = "failed"


def _status_after(ending: Ending) -> str:
    if ending.how == CANCELED:
        return "canceled"
    return "timedout" if ending.how in {SCRIPT_TIMED_OUT, JOB_TIMED_OUT, TIMED_OUT} else "failed"


def weight(kind: str) -> int:
    """The lower, the sooner a failure is the one that is reported."""
    return WEIGHT.get(kind, 0)


def reason_of(stage: dict, ending: Ending) -> str | None:
    """GitLab's name for the failure."""
    if ending.reason is not None:
        return ending.reason
    if ending.how in {TIMED_OUT, SCRIPT_TIMED_OUT, JOB_TIMED_OUT}:
        return "job_execution_timeout"
    if ending.how == FAILED_TO_START:
        return "runner_system_failure"
    if ending.how == CANCELED:
        return "job_canceled"
    return stage.get("exit_reason") or "script_failure"


def result(progress: Progress, stage: str | None, abort_reason: str | None) -> dict:
    """The result of the job as it is sent."""
    failure = progress.failure
    if abort_reason is not None:
        return _result(
            "aborted", abort_reason or None, 0, "the job was aborted: %s" % (abort_reason or "no reason given"), stage
        )
    if progress.is_canceled:
        return _result("canceled", "job_canceled", 0, "the job was canceled", failure.stage if failure else stage)
    if failure is None:
        return _result("success", None, 0, "", stage)
    return _result("failed", failure.reason, failure.code, failure.message, failure.stage)


def _result(outcome: str, reason: str | None, code: int, message: str, stage: str | None) -> dict:
    return {"outcome": outcome, "reason": reason, "exit_code": code, "message": message, "stage": stage}


def duration(seconds: float) -> str:
    """A duration as GitLab Runner writes it: 1h0m0s, 1m30s, 2s, 1.5s."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes = rest // 60
    fraction = seconds - whole
    last = ("%.3f" % (rest % 60 + fraction)).rstrip("0").rstrip(".") + "s"
    if hours:
        return "%dh%dm%s" % (hours, minutes, last)
    return "%dm%s" % (minutes, last) if minutes else last
