"""How much room there is on the disks that jobs fill.

Rule: a disk is told once, however many watched paths are on it; a path that is not there yet stands for the folder that
it will be made in.
"""

from __future__ import annotations

import os

from . import uses
from .home import Home


class Mark:
    """A watermark: so many bytes, or so many percent of a disk; the larger counts."""

    def __init__(self, said: dict) -> None:
        self._bytes = float(said.get("bytes") or 0)
        self._percent = float(said.get("percent") or 0)

    def of(self, size_bytes: int) -> float:
        """In bytes, on a disk of this size."""
        return max(self._bytes, size_bytes * self._percent / 100)


def disks(home: Home) -> list:
    """Each disk once, with its free room for this user."""
    found = {}
    for path in (home.root, *uses.watched_disks(home)):
        there = standing(path)
        look = measure(there)
        if look is not None:
            found.setdefault(os.stat(there).st_dev, {"path": there, "free_bytes": look[0], "size_bytes": look[1]})
    return list(found.values())


def measure(path: str) -> tuple | None:
    """(free, size) in bytes of the disk that holds a path."""
    try:
        room = os.statvfs(path)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize


def standing(path: str) -> str:
    """The path itself, or the nearest folder above it that exists."""
    while not os.path.exists(path) and path not in {"", "/"}:
        path = os.path.dirname(path)
    return path or "/"
