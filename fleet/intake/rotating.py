"""Renews runner tokens at three quarters of their life.

The renewal is claimed per runner, so of several managers one does it. The new token is committed before the file is
touched: when the file cannot be written, the newer one wins at the next start. After an answer that got lost the old
token may be dead and the new one unknown; that is said loudly, because only a person can mend it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from fleet.gitlab.client import GitLab
from fleet.gitlab.outcomes import Doubt, Refused, TokenReset
from fleet.model.ids import ManagerId
from fleet.settings.runner import short_token
from fleet.store import pools
from fleet.store.book import Book, Runner
from fleet.store.database import Store

log = structlog.get_logger(__name__)
AGAIN = timedelta(minutes=5)
LIFE_SHARE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What one activation saw and did."""

    due: int = 0


@dataclass(slots=True, kw_only=True)
class Rotator:
    """The controller that renews tokens.

    Attributes:
        wall: the wall clock, because a token's life is told in GitLab's time.
        save: writes a renewed token into the configuration file.
    """

    store: Store
    book: Book
    me: ManagerId
    submit: Callable[..., bool]
    hint: Callable[..., None]
    server_of: Callable[[Runner], GitLab]
    wall: Callable[[], datetime]
    save: Callable[[Runner, str, datetime, datetime | None], None]
    _not_before: dict[str, datetime] = field(default_factory=dict)

    def activate(self) -> Rotated:
        """Renew what is due."""
        due = 0
        rows = {row.runner_key: row for row in self.store.read(pools.all_runners)}
        for runner in self.book.runners.values():
            row = rows.get(runner.key)
            if runner.retired or row is None:
                continue
            if row.token != runner.token:  # another manager has renewed it
                self.book.replace_runner(replace(runner, token=row.token, short_token=short_token(row.token)))
                continue
            if runner.settings.feature_flags.get("FF_DISABLE_AUTOMATIC_TOKEN_ROTATION"):
                continue
            if self._is_due(row):
                due += 1
                self.submit(f"rotate:{runner.key}", "rotate", lambda r=runner: self._rotate(r), timeout_s=600)
        return Rotated(due=due)

    def _is_due(self, row: pools.RunnerRow) -> bool:
        if row.token_expires_at is None or row.token_obtained_at is None:
            return False
        now = self.wall()
        if now < self._not_before.get(row.runner_key, now):
            return False
        life = row.token_expires_at - row.token_obtained_at
        return now >= row.token_obtained_at + life * LIFE_SHARE

    def _rotate(self, runner: Runner) -> None:
        now = self.wall()
        self._not_before[runner.key] = now + AGAIN
        if not self.store.write(lambda tx: pools.claim_runner(tx, runner.key, self.me, runner.token)):
            return
        result = self.server_of(runner).reset_token(token=runner.token, runner=runner.short_token)
        match result:
            case TokenReset():
                self._keep(runner, result, now)
            case Refused():
                log.error("token_not_renewed", runner=runner.settings.name, reason=result.reason)
            case Doubt():
                log.error("token_renewal_in_doubt", runner=runner.settings.name, reason=result.reason)

    def _keep(self, runner: Runner, renewed: TokenReset, now: datetime) -> None:
        expires = renewed.token_expires_at
        self.store.write(
            lambda tx: pools.renew_token(
                tx, runner.key, token=renewed.token, obtained_at=now, expires_at=expires, old=runner.token
            )
        )
        self.book.replace_runner(replace(runner, token=renewed.token, short_token=short_token(renewed.token)))
        log.info(
            "token_renewed",
            runner=runner.settings.name,
            expires_at=None if expires is None else expires.isoformat(),
        )
        self.save(runner, renewed.token, now, expires)
        self.hint("intake")
