"""Watches the configuration file: what changed there comes into force, what is broken there changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass

import structlog

from fleet.runtime.app import Manager
from fleet.sdk import FleetError
from fleet.settings.environment import Env, Overrides
from fleet.settings.loading import load

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Reloader:
    """Reloads the configuration of a manager.

    Attributes:
        problem: why the file as it is now is not in force; None when it is.
    """

    manager: Manager
    env: Env
    overrides: Overrides
    problem: str | None = None
    loaded: int = 0
    failed: int = 0
    _seen: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.manager.settings.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def look(self, *, forced: bool = False) -> bool:
        """Reload when the file changed, or when `forced`; True when a new configuration is in force."""
        stamp = self._stamp()
        if stamp == self._seen and not forced:
            return False
        self._seen = stamp
        found = load(self.manager.settings.path, self.env, overrides=self.overrides)
        if found.content_hash in self.manager.saver.ours and not forced:
            return False
        for line in found.lines():
            log.warning("configuration_problem", problem=line)
        if found.settings is None:
            self.failed += 1
            self.problem = "; ".join(found.lines())
            log.error("configuration_not_reloaded", file=found.path, kept="the configuration that was in force")
            return False
        try:
            self.manager.reconfigure(found.settings)
        except FleetError as exc:
            self.failed += 1
            self.problem = str(exc)
            log.error("configuration_not_reloaded", file=found.path, error=str(exc))
            return False
        self.loaded += 1
        self.problem = None
        log.info("configuration_reloaded", file=found.path)
        return True
