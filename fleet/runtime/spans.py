"""Instants and spans of time in sentences."""

from __future__ import annotations

from datetime import datetime


def lasted(seconds: float) -> str:
    """A time span: 3 s, 4 m 10 s, 2 h 5 m, 3 d 4 h."""
    whole = max(0, round(seconds))
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def at_time(at: datetime | str) -> str:
    """An instant in a sentence."""
    then = datetime.fromisoformat(at) if isinstance(at, str) else at
    return then.strftime("%Y-%m-%d %H:%M:%S UTC")
