"""What the pretend GitLab does wrong on request, and to which calls.

Rule: a fault names an endpoint (or `*`), perhaps a job, how often it strikes and how many calls it
lets pass before; at most one fault strikes a call, the oldest that matches. The kinds:

* `status`   answers `status` with `headers` and does no work
* `html`     answers an HTML page with `status` (default: the one of success) and does no work
* `truncated_json`, `content_type`  does the work; the answer is cut in half, or is labelled text/html
* `extra_fields`  does the work; the answer holds fields nobody has heard of
* `delay`    is silent for `seconds`, then does the work and answers
* `reset_body`    resets the connection in the middle of reading the request's body; no work
* `lost_answer`   does the work and resets the connection instead of answering

Endpoints: register, verify, unregister, unregister_manager, reset_token, reset_runner_token,
request, update (any PUT of a job; more exactly ack, touch, final), trace, git, artifact_upload, artifact_download,
object_storage (status; truncated_json sends half of the object).
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import threading
from collections.abc import Collection, Mapping

ENDPOINTS = frozenset({
    "*", "register", "verify", "unregister", "unregister_manager", "reset_token", "reset_runner_token",
    "request", "update", "ack", "touch", "final", "trace", "git",
    "artifact_upload", "artifact_download", "object_storage",
})  # fmt: skip


class FaultKind(enum.StrEnum):
    """Ways to go wrong; the module says what each does."""

    STATUS = "status"
    HTML = "html"
    TRUNCATED_JSON = "truncated_json"
    CONTENT_TYPE = "content_type"
    EXTRA_FIELDS = "extra_fields"
    DELAY = "delay"
    RESET_BODY = "reset_body"
    LOST_ANSWER = "lost_answer"


WITHOUT_WORK = frozenset({FaultKind.STATUS, FaultKind.HTML, FaultKind.RESET_BODY})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One order to go wrong; `count` None means until it is lifted."""

    kind: FaultKind
    endpoint: str = "*"
    job_id: int | None = None
    count: int | None = 1
    skip: int = 0
    status: int | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"unknown endpoint {self.endpoint!r}; known are {', '.join(sorted(ENDPOINTS))}")
        if self.kind is FaultKind.STATUS and self.status is None:
            raise ValueError("a status fault needs a status")

    def matches(self, names: Collection[str], job_id: int | None) -> bool:
        """Whether a call known by these names, for this job, is meant."""
        return (self.endpoint == "*" or self.endpoint in names) and self.job_id in {None, job_id}


class Faults:
    """The orders that still stand; safe to use from any thread."""

    def __init__(self) -> None:
        self._standing: dict[int, Fault] = {}
        self._struck: dict[int, int] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> int:
        """Stand from now on; the number lifts it again."""
        with self._lock:
            number = next(self._ids)
            self._standing[number] = fault
            self._struck[number] = 0
            return number

    def lift(self, number: int | None = None) -> None:
        """End one order, or all of them."""
        with self._lock:
            if number is None:
                self._standing.clear()
            else:
                self._standing.pop(number, None)

    def struck(self, number: int) -> int:
        """How many calls this order has struck."""
        with self._lock:
            return self._struck[number]

    def take(self, names: Collection[str], job_id: int | None) -> Fault | None:
        """The fault for this call, if any; it is then used up by one."""
        with self._lock:
            for number, fault in self._standing.items():
                if not fault.matches(names, job_id):
                    continue
                if fault.skip > 0:
                    self._standing[number] = dataclasses.replace(fault, skip=fault.skip - 1)
                    continue
                self._struck[number] += 1
                self._use_up(number, fault)
                return fault
            return None

    def _use_up(self, number: int, fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count <= 1:
            del self._standing[number]
        else:
            self._standing[number] = dataclasses.replace(fault, count=fault.count - 1)
