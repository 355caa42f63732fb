"""Watches the disks that the manager writes to: below the reserve no further job is taken."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)
LOOK_S = 2.0


@dataclass(slots=True, kw_only=True)
class Disks:
    """The disks of the state directory and the spool.

    Attributes:
        reserve_bytes: `[fleet] reserve_free_bytes`.
    """

    paths: Sequence[str]
    reserve_bytes: int
    _told: str | None = None
    _looked_at: float = field(default=-LOOK_S)

    def problem(self) -> str | None:
        """Why no job may be taken; None when there is room."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return self._told
        self._looked_at = time.monotonic()
        found = next((text for path in self.paths if (text := self._problem_of(path)) is not None), None)
        if found is not None and self._told is None:
            log.error("disk_low", problem=found)
        if found is None and self._told is not None:
            log.info("disk_has_room_again")
        self._told = found
        return found

    def _problem_of(self, path: str) -> str | None:
        try:
            stat = os.statvfs(path)
        except OSError as exc:
            return f"{path} cannot be looked at: {exc.strerror}"
        free = stat.f_bavail * stat.f_frsize
        if free >= self.reserve_bytes:
            return None
        return (
            f"only {free // 2**20} MiB are free in {path}, less than [fleet] reserve_free_bytes "
            f"({self.reserve_bytes // 2**20} MiB): no jobs are taken until there is room; running jobs go on"
        )
