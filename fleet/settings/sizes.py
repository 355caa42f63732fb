"""Room on a disk as the configuration writes it: "10%" of the disk, "20 GiB", "500 MB", a bare 0.

Rule: a number without a unit is refused, because nobody can tell bytes from mebibytes by looking at it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%|[A-Za-z]+)?\s*")
HINT = 'write a share of the disk, such as "10%", or a size with its unit, such as "20 GiB"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """So many bytes, or so many percent of whatever disk it is."""

    bytes: int = 0
    percent: float = 0.0

    def of(self, size_bytes: int) -> float:
        """In bytes, on a disk of this size."""
        return max(float(self.bytes), size_bytes * self.percent / 100)

    def as_frame(self) -> dict[str, float]:
        """For the agent."""
        return {"bytes": self.bytes, "percent": self.percent}


def room_of(text: str) -> Room:
    """The room that `text` says; raises ValueError with what to write instead."""
    found = TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no room on a disk: {HINT}")
    number, unit = float(found[1]), (found[2] or "").upper()
    if unit == "%":
        if number > 100:
            raise ValueError(f"{text!r} is more than a disk has: {HINT}")
        return Room(percent=number)
    if unit not in UNITS and number:
        raise ValueError(f"{text!r} has no unit that is known here: {HINT}")
    return Room(bytes=int(number * UNITS.get(unit, 0)))


def _read(value: object) -> object:
    if value == 0 and not isinstance(value, bool):
        return "0"
    if isinstance(value, str):
        room_of(value)
        return value
    raise ValueError(f"is no room on a disk: {HINT}")


DiskRoom = Annotated[str, BeforeValidator(_read)]
