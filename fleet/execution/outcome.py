"""What the end of a job means: the agent's result, and who stopped it, in GitLab's words.

Rule: blame falls where it belongs, because `retry:when` and people go by it. A script that fails is the author's; a
machine that is lost, an agent that dies or a result nobody can read is ours, whatever the job was doing; a cancel is a
person's wish; an abort that nobody at GitLab asked for is our own stopping. Which of these words a GitLab knows is seen
to when they are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.gitlab.failure_reasons import FailureReason
from fleet.model.job import Outcome

SUCCESS, FAILED = "success", "failed"
_MESSAGES = {
    FailureReason.JOB_CANCELED: "canceled",
    FailureReason.RUNNER_INTERRUPTED: "the manager was told to stop its jobs",
    FailureReason.JOB_EXECUTION_TIMEOUT: "execution took longer than allowed",
    FailureReason.RUNNER_SYSTEM_FAILURE: "the machine was lost",
}
_INT32 = 1 << 32


def outcome_of(*, result: Mapping[str, Any], stop: str | None = None, stop_reason: str | None = None) -> Outcome:
    """The outcome of a job.

    `result` is the agent's (docs/reference/agent-frames.md), or one in its shape for a machine that is lost. `stop` is
    what was asked for, `cancel` or `abort`, and `stop_reason` the words for people.
    """
    how = result.get("outcome")
    if how == SUCCESS:
        return Outcome(state=SUCCESS)
    reason = _reason(str(how), result, stop)
    # a script that is ended by a cancel or an abort has an exit code too, but not one of its own
    code = _int32(result.get("exit_code")) if how == FAILED else 0
    message = str(result.get("message") or "")
    if how == "aborted" and stop_reason:
        message = stop_reason
    if how == "canceled":
        message = _MESSAGES[FailureReason.JOB_CANCELED]
    if not message:
        message = f"exit code {code}" if code else _MESSAGES.get(reason, str(reason))
    return Outcome(state=FAILED, failure_reason=reason.value, exit_code=code, message=message)


def _reason(how: str, result: Mapping[str, Any], stop: str | None) -> FailureReason:
    match how:
        case "failed":
            return _named(result.get("reason")) or FailureReason.SCRIPT_FAILURE
        case "canceled":
            return FailureReason.JOB_CANCELED
        case "aborted":
            # GitLab's own abort is never reported; the word is for our records
            ours = FailureReason.JOB_CANCELED if stop == "abort" else FailureReason.RUNNER_INTERRUPTED
            return _named(result.get("reason")) or ours
        case _:
            return FailureReason.RUNNER_SYSTEM_FAILURE


def _named(reason: object) -> FailureReason | None:
    try:
        return FailureReason(str(reason))
    except ValueError:
        return None


def _int32(code: object) -> int:
    """As GitLab stores it: signed, 32 bits."""
    if not isinstance(code, int):
        return 0
    wrapped = code % _INT32
    return wrapped - _INT32 if wrapped >= _INT32 >> 1 else wrapped
