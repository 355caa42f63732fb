"""Runners, their tokens and the managers seen behind each.

Rule: tokens are made at run time and a replaced token is worthless at once, as on GitLab. Which
jobs a runner gets is the queue's business.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import secrets
import time
from typing import Any


@dataclasses.dataclass(slots=True, kw_only=True)
class Runner:
    """One runner; `queue_version` moves whenever a job may have arrived for it."""

    id: int
    token: str
    description: str = ""
    legacy: bool = False
    paused: bool = False
    revoked: bool = False
    lifetime_s: float | None = None
    expires_at: float | None = None
    queue_version: int = 0
    managers: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def last_update(self) -> str:
        """The value of `X-GitLab-Last-Update`: opaque, and different for each runner."""
        return f"{self.id:08x}{self.queue_version:024x}"

    @property
    def may_call(self) -> bool:
        """Whether its token still opens anything."""
        return not self.revoked and (self.expires_at is None or time.time() < self.expires_at)

    def credentials(self) -> dict[str, Any]:
        """What register, verify and reset answer."""
        return {"id": self.id, "token": self.token, "token_expires_at": self.expiry_text()}

    def expiry_text(self) -> str | None:
        """When the token ends, as GitLab writes it."""
        if self.expires_at is None:
            return None
        return dt.datetime.fromtimestamp(self.expires_at, dt.UTC).isoformat(timespec="milliseconds")

    def view(self) -> dict[str, Any]:
        """Everything a test may ask about."""
        return dataclasses.asdict(self) | {"last_update": self.last_update}


class Runners:
    """All runners by id and by token; the caller holds the lock."""

    def __init__(self) -> None:
        self.registration_token = "GR1348941" + secrets.token_hex(10)
        self.private_token = "pat-" + secrets.token_hex(10)
        self._by_id: dict[int, Runner] = {}
        self._by_token: dict[str, Runner] = {}
        self._ids = itertools.count(1)

    def create(
        self, *, description: str = "", legacy: bool = False, paused: bool = False, lifetime_s: float | None = None
    ) -> Runner:
        """A new runner with a token of its kind: `glrt-` when made in the user interface."""
        runner = Runner(
            id=next(self._ids),
            token=new_runner_token(legacy=legacy),
            description=description,
            legacy=legacy,
            paused=paused,
            lifetime_s=lifetime_s,
            expires_at=None if lifetime_s is None else time.time() + lifetime_s,
        )
        self._by_id[runner.id] = runner
        self._by_token[runner.token] = runner
        return runner

    def get(self, runner_id: int) -> Runner:
        """The runner with this id; KeyError says that there is none."""
        return self._by_id[runner_id]

    def calling(self, token: object) -> Runner | None:
        """Whose token this is, if it still opens anything."""
        runner = self._by_token.get(token) if isinstance(token, str) else None
        return runner if runner is not None and runner.may_call else None

    def reset(self, runner: Runner) -> None:
        """A new token with a new life; the old one is refused from now on."""
        del self._by_token[runner.token]
        runner.token = new_runner_token(legacy=runner.legacy)
        if runner.lifetime_s is not None:
            runner.expires_at = time.time() + runner.lifetime_s
        self._by_token[runner.token] = runner

    def delete(self, runner: Runner) -> None:
        """Gone, with its token."""
        self._by_id.pop(runner.id, None)
        self._by_token.pop(runner.token, None)

    def all(self) -> list[Runner]:
        """In order of creation."""
        return list(self._by_id.values())


def new_runner_token(*, legacy: bool) -> str:
    """20 random characters; the prefix tells a runner made in the user interface."""
    return ("" if legacy else "glrt-") + secrets.token_urlsafe(15)
