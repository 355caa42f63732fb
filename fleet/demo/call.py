"""One API call while it is served: the request, its start, and how answers are made.

Rule: an answer that the client may never see (`Dropped`) is an exception, so that no handler can
forget that its client knows nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from werkzeug.wrappers import Request, Response

from fleet.demo.conduct import Breach
from fleet.demo.state import State


class DroppedError(Exception):
    """The connection is to be reset instead of answered."""


class Peer(Protocol):
    """The client's end of one connection; `system_id` is what it last polled with."""

    system_id: str | None

    def is_there(self) -> bool:
        """Whether it has not hung up."""
        ...


@dataclasses.dataclass(slots=True, kw_only=True)
class Call:
    """`started` is monotonic and taken before anything waits."""

    state: State
    request: Request
    endpoint: str
    started: float
    peer: Peer
    job_id: int | None = None
    runner_id: int | None = None
    names: frozenset[str] = frozenset()

    def blame(self, breaches: Iterable[Breach]) -> bool:
        """Write breaches down; whether there were any."""
        found = list(breaches)
        for slug, detail in found:
            self.state.violations.record(slug, self.job_id, detail)
        return bool(found)

    def content(self) -> bytes:
        """The whole body; a client that broke off in the middle of it gets no answer."""
        data = self.request.get_data()
        if len(data) < (self.request.content_length or 0):
            raise DroppedError
        return data

    def body(self) -> dict[str, Any]:
        """The JSON object of the body; anything else is a breach and an empty object."""
        try:
            parsed = json.loads(self.content() or b"{}")
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            self.blame([("bad_body", f"{self.endpoint}: the body is no JSON object")])
            return {}
        return parsed


def answer(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> Response:
    """JSON when there is a body, else nothing but the status."""
    if body is None:
        response = Response(status=status)
        response.headers.pop("Content-Type", None)
    else:
        response = Response(json.dumps(body), status=status, content_type="application/json")
    response.headers.update(headers or {})
    return response


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as GitLab words it."""
    return answer(status, {"message": message}, headers)
