"""A job that cannot be run as it was given, known before anything of it started."""

from __future__ import annotations

from typing import ClassVar

from fleet.gitlab.failure_reasons import FailureReason
from fleet.sdk.errors import FleetError

UNSUPPORTED_OPTION = 3  # the exit code that GitLab knows for options a runner has no support for


class JobRefused(FleetError):
    """The job ends with this reason and exit code; the message is for its log.

    `heading` are the first lines of that log, where they tell more than who refuses.
    """

    slug: ClassVar[str] = "job_refused"

    def __init__(self, message: str, *, reason: FailureReason, exit_code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.exit_code = exit_code
        self.heading: bytes | None = None


def unsupported(options: str) -> JobRefused:
    """The refusal of what the payload asks for and this manager has no support for."""
    return JobRefused(
        f"this job uses what the runner does not support: {options}; remove it from the job, or use another runner",
        reason=FailureReason.RUNNER_SYSTEM_FAILURE,
        exit_code=UNSUPPORTED_OPTION,
    )


def misconfigured(message: str) -> JobRefused:
    """The refusal of a setting that a person must mend, in the job or at the runner."""
    return JobRefused(message, reason=FailureReason.RUNNER_CONFIGURATION_ERROR)
