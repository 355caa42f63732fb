"""Writes what the manager itself learned into the configuration file, and remembers its own writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import structlog

from fleet.sdk import FleetError
from fleet.settings.editing import RunnerMatch
from fleet.settings.environment import Env
from fleet.settings.writing import set_token
from fleet.store.book import Runner

log = structlog.get_logger(__name__)
REMEMBERED = 32


@dataclass(slots=True, kw_only=True)
class Saver:
    """Saves to one configuration file.

    Attributes:
        ours: hash of the file as we wrote it -> hash of what it said before.
        saved, failed: how often, for metrics.
    """

    path: str
    env: Env
    ours: dict[str, str] = field(default_factory=dict)
    saved: int = 0
    failed: int = 0

    def save_token(self, runner: Runner, token: str, obtained_at: datetime, expires_at: datetime | None) -> None:
        """Write a renewed token into the runner's entry; the store has it already, whatever happens here."""
        which = RunnerMatch(
            url=runner.settings.url, id=runner.settings.id, token=runner.token, name=runner.settings.name
        )
        try:
            done = set_token(self.path, which, self.env, token=token, obtained_at=obtained_at, expires_at=expires_at)
        except FleetError as exc:
            self.failed += 1
            log.error("token_not_saved", runner=runner.settings.name, error=str(exc), kept="the store has it")
            return
        self.saved += 1
        if done.changed and done.replaced_hash is not None:
            self.ours[done.content_hash] = done.replaced_hash
            while len(self.ours) > REMEMBERED:
                del self.ours[next(iter(self.ours))]

    def only_ours_between(self, before: str | None, now: str | None) -> bool:
        """Whether nobody but us changed the file from `before` to `now`: then there is no reason to reload.

        A person's edit that we wrote a token on top of is found: its hash stands between the two.
        """
        for _ in range(REMEMBERED + 1):
            if now == before:
                return True
            if now is None or now not in self.ours:
                return False
            now = self.ours[now]
        return False
