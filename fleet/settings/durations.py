"""Durations as the configuration writes them: Go's syntax, "1h30m", "90s", "1.5s", a bare 0.

Rule: a number without a unit is refused, because GitLab Runner would read it as nanoseconds and a person means
seconds. Keys that GitLab Runner has as plain seconds are integers and do not come here.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

UNITS_S = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "\u00b5s": Decimal("1e-6"),  # the micro sign
    "\u03bcs": Decimal("1e-6"),  # the Greek letter
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
LONGEST_S = 2**63 // 10**9  # Go counts nanoseconds in 64 bits: 292 years
PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
HINT = 'write a number with a unit, such as "90s", "20m0s" or "1h30m"'


def parse(text: str) -> timedelta:
    """The duration that `text` says; raises ValueError with what to write instead."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if digits == "0":
        return timedelta(0)
    total, at = Decimal(0), 0
    for part in PART.finditer(digits):
        if part.start() != at:
            break
        total += Decimal(part[1]) * UNITS_S[part[2]]
        at = part.end()
    if not digits or at != len(digits):
        raise ValueError(f"{text!r} is not a duration: {HINT}")
    if total > LONGEST_S:
        raise ValueError(f"{text!r} is longer than 292 years: {HINT}")
    return sign * timedelta(microseconds=int(total * 1_000_000))


def text_of(value: timedelta) -> str:
    """`value` as Go writes it: "1h30m0s", "20m0s", "1.5s", "0s"."""
    micros = value // timedelta(microseconds=1)
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    seconds, rest = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    text = f"{seconds}{fraction}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _read(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse(value)
    if value == 0 and not isinstance(value, bool):
        return timedelta(0)
    raise ValueError(f"is not a duration: {HINT}")


Duration = Annotated[timedelta, BeforeValidator(_read), PlainSerializer(text_of)]
