"""What came of a call to GitLab: one small class per thing the caller must tell apart.

Rule: every answer, and no answer at all, is one of these values. `reason` is a sentence for people; it holds no
secret. `retriable_seen` says that GitLab said "not now" at least once during the call, even if it went well in the
end: whoever asks for jobs then asks with half as many requests at a time. `retry_after_s` is what GitLab asked for
when it asked for more patience than one call has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fleet.gitlab.errors import PayloadError
from fleet.gitlab.payload import JobPayload
from fleet.gitlab.tls import TlsForJobs

# --- the registration family ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The token is good. Very old servers say no more than that."""

    runner_id: int | None = None
    token_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """There is a new runner, with a token of its own."""

    runner_id: int
    token: str = field(repr=False)
    token_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReset:
    """The runner has a new token; the old one is dead or about to die."""

    token: str = field(repr=False)
    token_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregistered:
    """The runner, or this manager's record of it, is gone (or was already)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """GitLab does not accept the token."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """GitLab does not accept what was asked; `reason` is its own text."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Nothing is known: never delete anything because of it."""

    reason: str
    status: int
    retry_after_s: float | None = None


# --- asking for a job ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOffer:
    """GitLab assigned a job; `raw` is the answer as it came, for keeping."""

    payload: JobPayload = field(repr=False)
    raw: bytes = field(repr=False)
    last_update: str | None
    tls: TlsForJobs = field(repr=False)
    request_id: str
    retriable_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenOffer:
    """GitLab assigned a job whose description is unreadable or was cut off, but whose id and token are known.

    Fail it with these, unless jobs are acknowledged in two phases: then saying nothing gives it back.
    """

    job_id: int
    token: str = field(repr=False)
    error: PayloadError
    last_update: str | None
    retriable_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NoJob:
    """Nothing to do now."""

    last_update: str | None
    retriable_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """The runner's token is refused: counts against its health."""

    reason: str
    retriable_seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """We cannot even ask, because of a file or setting: counts against the runner's health."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """No job and no verdict about the runner; status -1 stands for no usable answer. The runner stays healthy."""

    reason: str
    status: int
    retriable_seen: bool
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """We stopped asking because the stop sign was set; no job was on its way."""


# --- telling about a job -------------------------------------------------------------------------------------------


class UpdateOutcome(StrEnum):
    DONE = "done"  # 200
    ACCEPTED = "accepted"  # 202: the trace is not yet assembled; say it again after the interval
    RESEND = "resend"  # 412: the trace does not match; send it again from byte 0
    ABORT = "abort"  # Job-Status canceled or failed, or 403: stop, and say nothing more
    GONE = "gone"  # 404: stop, and say nothing more
    FAILED = "failed"  # try again later; on the final update this is one failed try


class PatchOutcome(StrEnum):
    ADVANCED = "advanced"  # 202: `offset` is the end of what was sent
    REOFFSET = "reoffset"  # 416: go on from `offset`, be it smaller or larger
    NOT_FOUND = "not_found"  # 404: ignored while the job runs; at the end the trace counts as sent
    ABORT = "abort"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """The answer to PUT. `cancel_requested`: stop the script (once), run after_script, and report as usual."""

    outcome: UpdateOutcome
    status: int
    reason: str = ""
    job_status: str | None = None
    cancel_requested: bool = False
    update_interval_s: int | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchResult:
    """The answer to PATCH. `offset` is where the next one starts, and None where nothing was learnt about it."""

    outcome: PatchOutcome
    status: int
    offset: int | None = None
    reason: str = ""
    job_status: str | None = None
    cancel_requested: bool = False
    update_interval_s: int | None = None
    retry_after_s: float | None = None
