"""What GitLab's answers mean.

Rule: `Job-Status` is read before the status code, for a job that was taken from us may be told with any code. A body
that should be JSON must say so and be it; anything else in its place is no answer. Reasons quote what GitLab said,
shortened, and without the tokens of the call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from fleet.gitlab.errors import PayloadError
from fleet.gitlab.outcomes import (
    BrokenOffer,
    Doubt,
    Forbidden,
    Invalid,
    JobOffer,
    NoJob,
    PatchOutcome,
    PatchResult,
    Refused,
    Registered,
    TokenReset,
    Unavailable,
    Unregistered,
    Unusable,
    UpdateOutcome,
    UpdateResult,
    Verified,
    Withdrawn,
)
from fleet.gitlab.payload import JobPayload
from fleet.gitlab.wire import NO_ANSWER, STOPPED, UNUSABLE, Answer, Call

LONGEST_INTERVAL_S = 900
LONGEST_REASON = 300
T = TypeVar("T")


def reason_of(answer: Answer, call: Call) -> str:
    """What happened, where, and what GitLab said about it."""
    where = f"{call.method} {call.template}"
    if answer.status == UNUSABLE:
        return answer.failure
    if answer.status < 0:
        said = f"{where}: {answer.failure}"
    else:
        said = f"{where}: GitLab answered {answer.status}{_quoted(answer)}"
    for name, value in call.headers:
        if name.endswith(b"-TOKEN"):
            said = said.replace(value.decode("latin-1"), "[MASKED]")
    return said


def _quoted(answer: Answer) -> str:
    location = answer.headers.get("location", "")
    if 300 <= answer.status < 400 and location:
        return f", a redirection to {location.partition('?')[0][:LONGEST_REASON]}: set url to that server"
    if not answer.body:
        return ""
    if not _is_json(answer):
        kind = answer.headers.get("content-type", "no content type").partition(";")[0]
        return f" with {kind} and not with JSON: does url name GitLab itself, is a proxy or a maintenance page between?"
    message = _message(answer.body)
    return f": {message}" if message else ""


def _message(body: bytes) -> str:
    """The text of `{"message": "text"}` or `{"message": {"field": ["texts"]}}`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "with broken JSON"
    said = found.get("message") or found.get("error") if isinstance(found, dict) else None
    if isinstance(said, dict):
        said = "; ".join(f"{key} {_joined(texts)}" for key, texts in said.items())
    return re.sub(r"\s+", " ", _joined(said))[:LONGEST_REASON] if said else ""


def _joined(said: object) -> str:
    return ", ".join(str(item) for item in said) if isinstance(said, list) else str(said)


def _is_json(answer: Answer) -> bool:
    kind: str = answer.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/json"


def _document(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of an answer of the expected status, or None."""
    if not _is_json(answer):
        return None
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _instant(text: object) -> datetime | None:
    if not isinstance(text, str) or not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# --- the registration family ---------------------------------------------------------------------------------------


def _otherwise(answer: Answer, call: Call) -> Refused | Doubt:
    reason = reason_of(answer, call)
    if answer.status == 403:
        return Refused(reason=reason)
    return Doubt(reason=reason, status=answer.status, retry_after_s=answer.retry_after_s)


def _made(answer: Answer, call: Call, status: int, make: Callable[[dict[str, Any]], T]) -> T | Refused | Doubt:
    """What `make` reads from the answer of the expected status, or why there is nothing to read."""
    if answer.status != status:
        return _otherwise(answer, call)
    found = _document(answer)
    try:
        if found is not None:
            return make(found)
    except (KeyError, TypeError, ValueError):
        found = None
    return Doubt(reason=f"{reason_of(answer, call)} (unreadable)", status=NO_ANSWER)


def verified(answer: Answer, call: Call) -> Verified | Refused | Doubt:
    """200 is good; an old server says it in plain text, which a page in HTML is not."""
    if answer.status == 200 and answer.headers.get("content-type", "").startswith("text/plain"):
        return Verified()

    def make(found: dict[str, Any]) -> Verified:
        runner_id = found.get("id")
        return Verified(
            runner_id=None if runner_id is None else int(runner_id),
            token_expires_at=_instant(found.get("token_expires_at")),
        )

    return _made(answer, call, 200, make)


def registered(answer: Answer, call: Call) -> Registered | Refused | Invalid | Doubt:
    """201 brings the runner's own token; 400 and 422 say what is wrong with the wish."""
    if answer.status in {400, 422}:
        return Invalid(reason=reason_of(answer, call))

    def make(found: dict[str, Any]) -> Registered:
        return Registered(
            runner_id=int(found["id"]),
            token=_token(found),
            token_expires_at=_instant(found.get("token_expires_at")),
        )

    return _made(answer, call, 201, make)


def token_reset(answer: Answer, call: Call) -> TokenReset | Refused | Doubt:
    """201 brings the new token."""

    def make(found: dict[str, Any]) -> TokenReset:
        return TokenReset(token=_token(found), token_expires_at=_instant(found.get("token_expires_at")))

    return _made(answer, call, 201, make)


def _token(found: dict[str, Any]) -> str:
    token = found["token"]
    if not isinstance(token, str) or not token:
        raise TypeError("no token")
    return token


def unregistered(answer: Answer, call: Call) -> Unregistered | Refused | Doubt:
    """Deleting what is absent is success."""
    return Unregistered() if answer.status in {204, 404} else _otherwise(answer, call)


# --- asking for a job ----------------------------------------------------------------------------------------------


def requested(
    answer: Answer, call: Call, last_update: str | None
) -> JobOffer | BrokenOffer | NoJob | Forbidden | Unusable | Unavailable | Withdrawn:
    """What came of asking; `last_update` is kept when GitLab says nothing newer."""
    newer = answer.headers.get("x-gitlab-last-update") or last_update
    seen = answer.retriable_seen
    match answer.status:
        case 201:
            return _offered(answer, call, newer)
        case 204:
            return NoJob(last_update=newer, retriable_seen=seen)
        case 403:
            return Forbidden(reason=reason_of(answer, call), retriable_seen=seen)
        case _ if answer.status == UNUSABLE:
            return Unusable(reason=answer.failure)
        case _ if answer.status == STOPPED:
            return Withdrawn()
        case _ if answer.status == NO_ANSWER and answer.seen_status == 201:
            return _offered(answer, call, newer)
    return _unavailable(answer, call)


def _unavailable(answer: Answer, call: Call) -> Unavailable:
    return Unavailable(
        reason=reason_of(answer, call),
        status=answer.status,
        retriable_seen=answer.retriable_seen,
        retry_after_s=answer.retry_after_s,
    )


def _offered(answer: Answer, call: Call, last_update: str | None) -> JobOffer | BrokenOffer | Unavailable:
    seen = answer.retriable_seen
    try:
        if not _is_json(answer):
            raise _not_json(answer)
        payload = JobPayload.parse(answer.body)
    except PayloadError as exc:
        if exc.job_id is not None and exc.token is not None:
            return BrokenOffer(
                job_id=exc.job_id, token=exc.token, error=exc, last_update=last_update, retriable_seen=seen
            )
        reason = f"{reason_of(answer, call)}: {exc}"
        return Unavailable(reason=reason, status=NO_ANSWER, retriable_seen=seen)
    return JobOffer(
        payload=payload,
        raw=answer.body,
        last_update=last_update,
        tls=answer.tls,
        request_id=answer.headers.get("x-request-id") or answer.request_id,
        retriable_seen=seen,
    )


def _not_json(answer: Answer) -> PayloadError:
    """The error for a job in other clothes, with its id and token if it is JSON underneath."""
    kind = answer.headers.get("content-type", "nothing")
    job_id, token = JobPayload.identity(answer.body)
    return PayloadError("Content-Type", f"it says {kind[:80]!r}, not application/json", job_id=job_id, token=token)


# --- telling about a job -------------------------------------------------------------------------------------------

_UPDATES = {
    200: UpdateOutcome.DONE,
    202: UpdateOutcome.ACCEPTED,
    403: UpdateOutcome.ABORT,
    404: UpdateOutcome.GONE,
    412: UpdateOutcome.RESEND,
}
_PATCHES = {
    202: PatchOutcome.ADVANCED,
    403: PatchOutcome.ABORT,
    404: PatchOutcome.NOT_FOUND,
    416: PatchOutcome.REOFFSET,
}
_TAKEN_AWAY = {"canceled", "failed"}


def _status_of(answer: Answer, job_status: str | None) -> int:
    """The status, unless a proxy or a maintenance page said it: it knows nothing of the job, nor keeps its end."""
    kind: str = answer.headers.get("content-type", "")
    is_page = job_status is None and kind.partition(";")[0].strip().lower() == "text/html"
    return NO_ANSWER if is_page and answer.status < 500 else answer.status


def updated(answer: Answer, call: Call) -> UpdateResult:
    """What came of a PUT."""
    job_status = answer.headers.get("job-status")
    status = _status_of(answer, job_status)
    outcome = _UPDATES.get(status, UpdateOutcome.FAILED)
    if job_status in _TAKEN_AWAY:
        outcome = UpdateOutcome.ABORT
    return UpdateResult(
        outcome=outcome,
        status=status,
        reason="" if outcome in {UpdateOutcome.DONE, UpdateOutcome.ACCEPTED} else reason_of(answer, call),
        job_status=job_status,
        cancel_requested=job_status == "canceling",
        update_interval_s=_interval_s(answer),
        retry_after_s=answer.retry_after_s,
    )


def patched(answer: Answer, call: Call, end: int) -> PatchResult:
    """What came of a PATCH that would have brought the trace to `end` bytes."""
    job_status = answer.headers.get("job-status")
    status = _status_of(answer, job_status)
    outcome = _PATCHES.get(status, PatchOutcome.FAILED)
    if job_status in _TAKEN_AWAY:
        outcome = PatchOutcome.ABORT
    offset = None
    if outcome is PatchOutcome.ADVANCED:
        offset = end
    elif outcome is PatchOutcome.REOFFSET:
        offset = _range_end(answer)
    return PatchResult(
        outcome=outcome,
        status=status,
        offset=offset,
        reason="" if outcome is PatchOutcome.ADVANCED else reason_of(answer, call),
        job_status=job_status,
        cancel_requested=job_status == "canceling",
        update_interval_s=_interval_s(answer),
        retry_after_s=answer.retry_after_s,
    )


def _interval_s(answer: Answer) -> int | None:
    text = answer.headers.get("x-gitlab-trace-update-interval", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return min(seconds, LONGEST_INTERVAL_S) if seconds > 0 else None


def _range_end(answer: Answer) -> int:
    """The second number of `Range: 0-N`, which is the next offset itself; unreadable stands for the beginning."""
    match = re.fullmatch(r"\s*[0-9]+-([0-9]{1,18})\s*", answer.headers.get("range", ""))
    return int(match[1]) if match else 0
