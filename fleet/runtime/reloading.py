"""Watches the configuration file: what changed there comes into force, what is broken there changes nothing.

What counts is the content: a file that is only touched, or that only we have written (a renewed token), is no reason to
reload. What could not be brought into force because the database is away is tried again.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

import structlog

from fleet.runtime.app import Manager
from fleet.sdk import FleetError
from fleet.settings.environment import Env, Overrides
from fleet.settings.loading import load
from fleet.settings.settings import Loaded
from fleet.store.engine import StoreUnavailable

log = structlog.get_logger(__name__)
Stamp = tuple[int, int, int]


@dataclass(slots=True)
class Reloader:
    """Reloads the configuration of a manager. Thread-safe.

    Attributes:
        in_force: hash of the content that is in force.
    """

    manager: Manager
    env: Env
    overrides: Overrides
    in_force: str | None = None
    loaded: int = 0
    failed: int = 0
    _seen: Stamp | None = None
    _again: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.in_force is None:
            self.in_force = self._load().content_hash
        else:
            self._again = True  # it may have changed between its first reading and now

    @property
    def problem(self) -> str | None:
        """Why the file as it is now is not in force; None when it is."""
        return self.manager.file_problem

    def _stamp(self) -> Stamp | None:
        try:
            found = os.stat(self.manager.settings.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> Loaded:
        self._seen, self._again = self._stamp(), False
        return load(self.manager.settings.path, self.env, overrides=self.overrides)

    def look(self, *, forced: bool = False) -> bool:
        """Reload when the file changed, or when `forced`; True when a new configuration is in force."""
        with self._lock:
            if self._stamp() == self._seen and not forced and not self._again:
                return False
            retry = self._again and self.failed > 0
            found = self._load()
            if not forced and self.manager.saver.only_ours_between(self.in_force, found.content_hash):
                self._is_as_before(found)
                return False
            return self._apply(found, quiet=retry)

    def _is_as_before(self, found: Loaded) -> None:
        self.in_force = found.content_hash
        if self.problem is not None:
            self.manager.file_problem = None
            log.info("configuration_as_before", file=found.path)

    def _apply(self, found: Loaded, *, quiet: bool) -> bool:
        for line in () if quiet else found.lines():
            log.warning("configuration_problem", problem=line)
        if found.settings is None:
            return self._refuse(found, "; ".join(found.lines()))
        try:
            self.manager.reconfigure(found.settings)
        except FleetError as exc:
            self._again = isinstance(exc, StoreUnavailable)
            return self._refuse(found, str(exc))
        self.loaded += 1
        self.in_force, self.manager.file_problem = found.content_hash, None
        log.info("configuration_reloaded", file=found.path)
        return True

    def _refuse(self, found: Loaded, problem: str) -> bool:
        self.failed += 1
        if problem != self.problem or not self._again:
            kept = "the configuration that was in force"
            log.error("configuration_not_reloaded", file=found.path, error=problem, kept=kept)
        self.manager.file_problem = problem
        return False
