"""Policies that can hold: cron periods and zones checked, what never matches left out and said.

Rule: what can never hold is a warning and is left out, so that planning sees only what it can read.
"""

from __future__ import annotations

from fleet.planning.periods import read_range, read_zone
from fleet.settings.autoscaler import PolicyTable
from fleet.settings.findings import Findings
from fleet.settings.positions import Path

EVERY = frozenset({"*", "*/1"})


def usable_policies(
    policies: tuple[PolicyTable, ...], path: Path, findings: Findings, local_zone: str
) -> tuple[PolicyTable, ...]:
    """The policies with the periods that can match, each with its zone; problems are noted."""
    found = []
    for number, policy in enumerate(policies):
        at = (*path, number)
        zone = local_zone if policy.timezone in {None, "Local"} else str(policy.timezone)
        try:
            read_zone(zone)
        except ValueError as exc:
            findings.error((*at, "timezone"), str(exc))
            continue
        periods = _usable_periods(policy, at, findings)
        if periods:
            found.append(policy.model_copy(update={"timezone": zone, "periods": periods}))
    _warn_of_shadows(policies, path, findings)
    return tuple(found)


def _usable_periods(policy: PolicyTable, at: Path, findings: Findings) -> tuple[str, ...]:
    usable = []
    for number, period in enumerate(policy.periods):
        where = (*at, "periods", number)
        try:
            read_range(period)
        except ValueError as exc:
            if _never_matches(period):
                findings.warn(where, f"{period!r} never matches: no such day in these months; it is left out")
            else:
                findings.error(where, f"{exc}; periods are five-field cron expressions such as '* 8-18 * * mon-fri'")
            continue
        usable.append(period)
    if policy.periods and not usable and not findings.are_fatal:
        findings.warn(at, "this policy can never hold: none of its periods matches")
    return tuple(usable)


def _never_matches(period: str) -> bool:
    """True when each field is right by itself and only day and month do not go together (31 February)."""
    fields = period.split()
    if len(fields) != 5:
        return False
    return _is_range([*fields[:2], "*", *fields[3:]]) and _is_range([*fields[:3], "*", fields[4]])


def _is_range(fields: list[str]) -> bool:
    try:
        read_range(" ".join(fields))
    except ValueError:
        return False
    return True


def holds_always(policy: PolicyTable) -> bool:
    """True when one of its periods is every minute."""
    return any(set(period.split()) <= EVERY for period in policy.periods)


def _warn_of_shadows(policies: tuple[PolicyTable, ...], path: Path, findings: Findings) -> None:
    last = max((number for number, policy in enumerate(policies) if holds_always(policy)), default=-1)
    for number in range(last):
        line = findings.positions.line((*path, last))
        findings.warn(
            (*path, number),
            f"this policy can never hold: the policy in line {line} always matches, and the last match wins; "
            "put the general policy first",
        )
