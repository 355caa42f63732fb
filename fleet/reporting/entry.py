"""What the reporter remembers of one job while GitLab has not heard the end of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from fleet.gitlab.client import GitLab, Info
from fleet.model.job import Outcome

INTERVAL_S = 3.0  # GitLab Runner's own, until the server asks for another
TOUCH_S = 30.0  # a silent job learns of its cancel by a touch


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where and as whom to report a job.

    Attributes:
        lane: the worker lane of its GitLab server.
        failure_reasons: those that the server said it understands.
        retry_limit: `job_status_final_update_retry_limit`.
    """

    key: str
    epoch: int
    job_id: int
    token: str = field(repr=False)
    server: GitLab = field(repr=False)
    lane: str
    info: Info = field(repr=False)
    runner: str = ""
    debug_trace: bool = False
    failure_reasons: Collection[str] = ()
    retry_limit: int = 10


@dataclass(slots=True, kw_only=True)
class Entry:
    """A job being reported; changed only by the one piece of work that its name allows in its lane.

    Attributes:
        sent: how many bytes of the trace GitLab has.
        patched_at: monotonic instant of the last piece that came to an end.
        was_full: that piece was as large as one may be, so the next may follow at once.
        not_before: monotonic instant before which nothing is sent, after a call that failed.
        heard_at: of the last answer that proves GitLab knows the job lives.
        outcome: set once the job has ended and its spool is whole.
        incomplete: bytes are gone for good: the final update goes without checksum.
        tries: failed tries of the final update that count against the limit.
        resent: how often GitLab wanted the whole trace again.
        unkept: writes down what GitLab said last; set while that could not be done.
    """

    target: Target
    sent: int = 0
    patched_at: float = 0.0
    was_full: bool = False
    not_before: float = 0.0
    heard_at: float = 0.0
    interval_s: float = INTERVAL_S
    outcome: Outcome | None = None
    incomplete: bool = False
    tries: int = 0
    silent_tries: int = 0
    resent: int = 0
    noted: int = -1
    cancel_told: bool = False
    ended: bool = False
    unkept: Callable[[], None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def piece_at(self) -> float:
        """Monotonic instant from which the next piece may be sent."""
        first_or_more = not self.patched_at or self.was_full
        return max(self.not_before, 0.0 if first_or_more else self.patched_at + self.interval_s)
