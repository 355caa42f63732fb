"""Which runners may ask GitLab for a job next.

The rules, for one runner:

- the next poll follows at once after a poll that brought a job (unless `strict_check_interval`), otherwise no sooner
  than `check_interval` after the previous one began;
- while jobs flow up to `request_concurrency` polls are in the air, otherwise one. How many of them is adaptive, as in
  GitLab Runner: x1.1 after a job, x0.95 after an empty answer, x0.5 when GitLab said "not now", between 1 and
  `request_concurrency`, rounded up;
- 403 `unhealthy_requests_limit` times in a row silences it for `unhealthy_interval`; nothing else does;
- jobs and polls together stay below its `limit`, and those of all runners below `concurrent`;
- its pool must have a slot to promise: `ask_limit` (law 3).

Among runners it goes round robin, in the order of the configuration, from the one after the last that asked. GitLab
may hold a poll that says what it saw last (`last_update`). So a poll is `held` only while each runner that may ask can
have a slot of its own; where they are more than the slots, all ask without it and are answered at once. At most one
poll of a runner is held.

All values in, values out: who calls keeps the states, counts jobs and polls from rows, and reserves the slot for real
before it asks; that reservation may still fail, because other managers share the pool.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from fleet.model.ids import PoolName, RunnerKey


class Answer(StrEnum):
    """How a poll ended, as far as the next one is concerned."""

    JOB = "job"
    NO_JOB = "no_job"
    FORBIDDEN = "forbidden"
    FAILED = "failed"


class Refusal(StrEnum):
    """Why a runner does not ask now."""

    UNHEALTHY = "unhealthy"
    TOLD_TO_WAIT = "told_to_wait"
    POLL_IN_THE_AIR = "poll_in_the_air"
    CHECK_INTERVAL = "check_interval"
    LIMIT = "limit"
    CONCURRENT = "concurrent"
    NO_FREE_SLOT = "no_free_slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerAsk:
    """One runner as asking sees it: what is configured, and how its polls went.

    Attributes:
        limit: jobs at once; 0 is no limit.
        adaptive: False keeps `request_concurrency` as it is.
        jobs: its jobs on this manager that are not finished.
        polls: its polls in the air.
        began_at: when the last poll began.
        flowing: the last poll that ended brought a job.
        pace: adaptive request concurrency, before rounding.
        failures: 403 in a row.
        unhealthy_until: silenced until then.
        not_before: GitLab asked for no request before this.
    """

    runner: RunnerKey
    pool: PoolName
    limit: int = 0
    request_concurrency: int = 1
    adaptive: bool = True
    check_interval: timedelta = timedelta(seconds=3)
    strict_check_interval: bool = False
    unhealthy_requests_limit: int = 3
    unhealthy_interval: timedelta = timedelta(minutes=60)
    jobs: int = 0
    polls: int = 0
    began_at: datetime | None = None
    flowing: bool = False
    pace: float = 1.0
    failures: int = 0
    unhealthy_until: datetime | None = None
    not_before: datetime | None = None

    @property
    def most_polls(self) -> int:
        """Polls that may be in the air at once just now."""
        if not self.flowing:
            return 1
        return math.ceil(self.pace) if self.adaptive else self.request_concurrency

    @property
    def may_have_jobs(self) -> bool:
        """Whether its own limit allows one more job."""
        return self.limit == 0 or self.jobs < self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRoom:
    """What a pool can promise: reservations that polls of all managers hold, and how many they may be."""

    asking: int
    ask_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Begin a poll for this runner; `held` polls carry `last_update`."""

    runner: RunnerKey
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Who asks now.

    Attributes:
        last: the last runner that asked, to be handed in next time.
        refusals: why each of the others does not ask.
        next_at: when time alone lets another runner ask.
    """

    asks: tuple[Ask, ...]
    last: RunnerKey | None
    refusals: Mapping[RunnerKey, Refusal]
    next_at: datetime | None


def began(runner: RunnerAsk, now: datetime) -> RunnerAsk:
    """The state after a poll has begun."""
    return replace(runner, polls=runner.polls + 1, began_at=now)


def ended(
    runner: RunnerAsk,
    answer: Answer,
    now: datetime,
    *,
    retriable_seen: bool = False,
    not_before: datetime | None = None,
) -> RunnerAsk:
    """The state after a poll has ended; `retriable_seen` when GitLab said "not now" at least once during the call."""
    factor = 1.1 if answer is Answer.JOB else 0.95
    if retriable_seen:
        factor = 0.5
    failures = runner.failures + 1 if answer is Answer.FORBIDDEN else 0
    is_silenced = failures > 0 and failures >= runner.unhealthy_requests_limit
    return replace(
        runner,
        polls=max(0, runner.polls - 1),
        flowing=answer is Answer.JOB,
        pace=min(max(1.0, runner.pace * factor), float(max(1, runner.request_concurrency))),
        failures=0 if is_silenced else failures,
        unhealthy_until=now + runner.unhealthy_interval if is_silenced else None,
        not_before=not_before,
    )


def choose(
    runners: Sequence[RunnerAsk],
    *,
    pools: Mapping[PoolName, PoolRoom],
    concurrent: int,
    now: datetime,
    last: RunnerKey | None = None,
) -> Choice:
    """Who may begin a poll now, round robin after `last`; a runner whose jobs flow may begin several."""
    table = _Table(runners, pools, concurrent, now)
    order = _after(runners, last)
    asks: list[Ask] = []
    refusals: dict[RunnerKey, Refusal] = {}
    while order:
        allowed = []
        for runner in order:
            refusal = table.refusal(runner.runner)
            if refusal is not None:
                refusals[runner.runner] = refusal
                continue
            asks.append(Ask(runner=runner.runner, held=table.begin(runner.runner)))
            allowed.append(runner)
        order = allowed
    asked = {ask.runner for ask in asks}
    return Choice(
        asks=tuple(asks),
        last=asks[-1].runner if asks else last,
        refusals={runner: refusal for runner, refusal in refusals.items() if runner not in asked},
        next_at=min((at for runner in runners if (at := table.may_ask_at(runner.runner)) > now), default=None),
    )


def _after(runners: Sequence[RunnerAsk], last: RunnerKey | None) -> list[RunnerAsk]:
    """The runners in turn, beginning after the last that asked."""
    start = next((index + 1 for index, runner in enumerate(runners) if runner.runner == last), 0)
    return [*runners[start:], *runners[:start]]


class _Table:
    """Counts while polls are given out; lives for one `choose`."""

    def __init__(
        self, runners: Sequence[RunnerAsk], pools: Mapping[PoolName, PoolRoom], concurrent: int, now: datetime
    ) -> None:
        self._now = now
        self._runners = {runner.runner: runner for runner in runners}
        polls = Counter[PoolName]()
        rivals = Counter[PoolName]()
        for runner in runners:
            polls[runner.pool] += runner.polls
            rivals[runner.pool] += self._is_rival(runner)
        self._room = {name: room.ask_limit - room.asking for name, room in pools.items()}
        self._workers = concurrent - sum(runner.jobs + runner.polls for runner in runners)
        # a slot for each that may ask, counting the slots its own polls hold already
        self._crowded = {name for name, free in self._room.items() if rivals[name] > max(0, free) + polls[name]}
        self._all_crowded = rivals.total() > max(0, self._workers) + polls.total()

    def _is_rival(self, runner: RunnerAsk) -> bool:
        return runner.may_have_jobs and (runner.unhealthy_until is None or runner.unhealthy_until <= self._now)

    def may_ask_at(self, key: RunnerKey) -> datetime:
        """When time lets this runner begin its next poll."""
        runner = self._runners[key]
        at = runner.unhealthy_until or self._now
        if runner.not_before is not None:
            at = max(at, runner.not_before)
        at_once = runner.flowing and not runner.strict_check_interval
        if runner.began_at is not None and not at_once and runner.polls < runner.most_polls:
            at = max(at, runner.began_at + runner.check_interval)
        return at

    def refusal(self, key: RunnerKey) -> Refusal | None:
        """Why this runner may not begin a poll now; None when it may."""
        runner, now = self._runners[key], self._now
        reasons = (
            (Refusal.UNHEALTHY, runner.unhealthy_until is not None and runner.unhealthy_until > now),
            (Refusal.TOLD_TO_WAIT, runner.not_before is not None and runner.not_before > now),
            (Refusal.POLL_IN_THE_AIR, runner.polls >= runner.most_polls),
            (Refusal.CHECK_INTERVAL, self.may_ask_at(key) > now),
            (Refusal.LIMIT, runner.limit != 0 and runner.jobs + runner.polls >= runner.limit),
            (Refusal.CONCURRENT, self._workers <= 0),
            (Refusal.NO_FREE_SLOT, self._room.get(runner.pool, 0) <= 0),
        )
        return next((refusal for refusal, applies in reasons if applies), None)

    def begin(self, key: RunnerKey) -> bool:
        """Count a poll of this runner as begun; whether it may be held."""
        runner = self._runners[key]
        held = runner.polls == 0 and not self._all_crowded and runner.pool not in self._crowded
        self._runners[key] = began(runner, self._now)
        self._room[runner.pool] -= 1
        self._workers -= 1
        return held
