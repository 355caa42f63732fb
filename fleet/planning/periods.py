"""When a policy holds: cron expressions read as ranges of minutes, on the wall clock of the policy's time zone.

The rule: a minute is inside when its local hands (naive, in the IANA zone) match one expression. So on the day clocks
go forward the skipped minutes are never inside, and on the day they go back the repeated ones are inside twice; both
are what a person who wrote "9-17" means. Sunday is 0 and 7; names (`mon-fri`, `jan`) are read in any case.

cronsim parses and knows days; its iterator is not used, because it mimics Debian's jumps around clock changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fleet.model.policy import Policy

HORIZON = timedelta(days=8)  # a weekly rhythm is seen whole; who plans at least once a week misses nothing
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001  cronsim wants some naive start; only its parsed fields are used
_HOUR_MIN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One parsed expression.

    Attributes:
        turns: minutes of the hour at which membership may change; 0 is always one.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    is_day: Callable[[date], bool]
    turns: tuple[int, ...]

    def holds(self, local: datetime) -> bool:
        """Whether the minute shown by these local hands is inside."""
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and local.month in self.months
            and self.is_day(local.date())
        )


@lru_cache(maxsize=1024)
def read_range(expression: str) -> Range:
    """Parse one five-field cron expression.

    Raises:
        ValueError: it is not one, or names a day that no month has.
    """
    if len(expression.split()) != 5:
        raise ValueError(f"period {expression!r} must have five fields: minute hour day-of-month month day-of-week")
    try:
        cron = CronSim(expression, _EPOCH)
    except CronSimError as exc:
        raise ValueError(f"period {expression!r} is not a cron expression: {exc}") from exc
    minutes = frozenset(cron.minutes)
    return Range(
        minutes=minutes,
        hours=frozenset(cron.hours),
        months=frozenset(cron.months),
        is_day=cron.match_day,
        turns=tuple(m for m in range(_HOUR_MIN) if m == 0 or (m in minutes) != (m - 1 in minutes)),
    )


@lru_cache(maxsize=256)
def read_zone(name: str) -> ZoneInfo:
    """The IANA zone of this name.

    Raises:
        ValueError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise ValueError(f"timezone {name!r} is not an IANA name such as 'Europe/Berlin'") from exc


def check(policy: Policy) -> None:
    """Raise ValueError with what is wrong with a policy's periods or zone."""
    read_zone(policy.timezone)
    for expression in policy.periods:
        read_range(expression)


def holds(policy: Policy, now: datetime) -> bool:
    """Whether `now` lies in one of the policy's periods."""
    local = now.astimezone(read_zone(policy.timezone))
    return any(read_range(expression).holds(local) for expression in policy.periods)


def in_force(policies: tuple[Policy, ...], now: datetime) -> int | None:
    """The index of the last policy that holds now; None when none does."""
    for index in range(len(policies) - 1, -1, -1):
        if holds(policies[index], now):
            return index
    return None


def next_change(policies: tuple[Policy, ...], now: datetime) -> datetime | None:
    """The first minute after `now` in which another policy (or none) is in force; None within `HORIZON`."""
    return _next_change(policies, now.replace(second=0, microsecond=0))


@lru_cache(maxsize=1024)
def _next_change(policies: tuple[Policy, ...], minute: datetime) -> datetime | None:
    if not policies or _holds_always(policies[-1]):
        return None
    today, at, end = in_force(policies, minute), minute, minute + HORIZON
    while at < end:
        at += timedelta(minutes=min(_minutes_to_turn(policy, at) for policy in policies))
        if in_force(policies, at) != today:
            return at
    return None


def _holds_always(policy: Policy) -> bool:
    return any(expression.split() == ["*"] * 5 for expression in policy.periods)


def _minutes_to_turn(policy: Policy, at: datetime) -> int:
    """Minutes until the local hands next reach a minute at which the policy may begin or end; at least 1.

    Clocks change at a full local hour, which is a turn of every expression, so no change is stepped over.
    """
    local = at.astimezone(read_zone(policy.timezone)).minute
    turns = (turn for expression in policy.periods for turn in read_range(expression).turns)
    return min(((turn - local - 1) % _HOUR_MIN + 1 for turn in turns), default=_HOUR_MIN)
