"""Why a job failed, in the words that this GitLab knows.

Rule: GitLab's `retry:when` and its accounting go by the reason, and a server refuses words it does not know. So a
newer word is replaced by the older one that has the same consequence for the user.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class FailureReason(StrEnum):
    SCRIPT_FAILURE = "script_failure"
    RUNNER_SYSTEM_FAILURE = "runner_system_failure"
    JOB_EXECUTION_TIMEOUT = "job_execution_timeout"
    IMAGE_PULL_FAILURE = "image_pull_failure"
    UNKNOWN_FAILURE = "unknown_failure"
    RUNNER_CONFIGURATION_ERROR = "runner_configuration_error"
    RUNNER_EXTERNAL_DEPENDENCY_FAILURE = "runner_external_dependency_failure"
    RUNNER_INTERRUPTED = "runner_interrupted"
    JOB_CANCELED = "job_canceled"


R = FailureReason
ALWAYS_KNOWN = frozenset({R.SCRIPT_FAILURE, R.RUNNER_SYSTEM_FAILURE, R.JOB_EXECUTION_TIMEOUT})
OLDER_WORD = {
    R.IMAGE_PULL_FAILURE: R.RUNNER_SYSTEM_FAILURE,
    R.RUNNER_CONFIGURATION_ERROR: R.SCRIPT_FAILURE,
    R.RUNNER_EXTERNAL_DEPENDENCY_FAILURE: R.RUNNER_SYSTEM_FAILURE,
}


def map_reason(reason: str | None, supported: Collection[str]) -> str:
    """The word to send, given the payload's `features.failure_reasons`."""
    if not reason:
        return R.SCRIPT_FAILURE.value
    if reason in supported or reason in ALWAYS_KNOWN:
        return str(reason)
    known = {word.value: older.value for word, older in OLDER_WORD.items()}
    return known.get(reason, R.UNKNOWN_FAILURE.value)
