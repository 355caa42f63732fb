"""The time limits that a job and its runner set, in seconds.

Rule: a limit that nobody can read, or that is negative, is warned about and counts as not given; so does zero, in
silence. A limit beyond the job's own is the job's own. No time is reserved: every limit runs inside the job's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

AFTER_SCRIPT_S = 300.0
ATTEMPTS_AT_MOST = 10
_PART = re.compile(
    r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII
)  # both signs that stand for micro
_UNITS_S = {
    "ns": Decimal("1e-9"), "us": Decimal("1e-6"), "\u00b5s": Decimal("1e-6"), "\u03bcs": Decimal("1e-6"),
    "ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptTimeouts:
    """`script_s` covers all steps together; None is no limit but the job's."""

    script_s: float | None
    after_script_s: float
    warnings: tuple[str, ...] = ()


def parse_duration_s(text: str) -> float | None:
    """Seconds of a duration in Go's manner (`1h30m`, `90s`, `1.5h`, `-2m`); None for any other text."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0.0
    total, at = Decimal(0), 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            return None
        total += Decimal(part[1]) * _UNITS_S[part[2]]
        at = part.end()
    return float(sign * total) if rest else None


def script_timeouts(*, script: str, after_script: str, job_s: float) -> ScriptTimeouts:
    """The limits from RUNNER_SCRIPT_TIMEOUT and RUNNER_AFTER_SCRIPT_TIMEOUT."""
    warnings: list[str] = []
    script_s = _limit("RUNNER_SCRIPT_TIMEOUT", script, job_s, warnings)
    after_s = _limit("RUNNER_AFTER_SCRIPT_TIMEOUT", after_script, job_s, warnings)
    return ScriptTimeouts(
        script_s=script_s,
        after_script_s=min(AFTER_SCRIPT_S, job_s) if after_s is None else after_s,
        warnings=tuple(warnings),
    )


def within_job(limit_s: float | None, job_s: float) -> float | None:
    """A limit of the runner's settings; None when it does not bind before the job's own."""
    return None if limit_s is None or limit_s <= 0 or limit_s >= job_s else limit_s


def attempts(text: str) -> int:
    """How often to try, from a variable: 1 unless it is a whole number, and 1 to 10 in any case."""
    try:
        wanted = int(text.strip()[:20] or "1")
    except ValueError:
        return 1
    return max(1, min(ATTEMPTS_AT_MOST, wanted))


def _limit(name: str, text: str, job_s: float, warnings: list[str]) -> float | None:
    if not text.strip():
        return None
    limit_s = parse_duration_s(text.strip())
    if limit_s is None or limit_s < 0:
        warnings.append(f"{name} is {text!r}, which is no duration such as 90s or 1h30m: it is ignored")
        return None
    if limit_s > job_s:
        warnings.append(f"{name} is {text!r}, longer than the job's own time-out of {job_s:g} s, which ends it first")
        return job_s
    return limit_s or None
