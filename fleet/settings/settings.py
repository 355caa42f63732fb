"""The whole configuration as one frozen value, and what a load of the file brings back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from fleet.model.ids import PoolName, RunnerKey
from fleet.settings.manager import FleetSettings, GlobalTable
from fleet.settings.pools import PoolSettings
from fleet.settings.problems import Problem, Severity, render
from fleet.settings.runner import RunnerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedRunner:
    """An entry that the file names and that cannot run just now: it is not retired, nor is its pool.

    Attributes:
        reason: what is wrong, for people.
    """

    index: int
    key: RunnerKey
    name: str
    pool: PoolName | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything the file says, resolved.

    Attributes:
        path: absolute path of the file.
        stopped: entries that cannot run; the others do.
    """

    path: str
    global_: GlobalTable
    fleet: FleetSettings
    runners: tuple[RunnerSettings, ...]
    pools: tuple[PoolSettings, ...]
    stopped: tuple[StoppedRunner, ...] = ()

    @cached_property
    def pool_by_name(self) -> dict[PoolName, PoolSettings]:
        """Pools by name."""
        return {each.name: each for each in self.pools}

    @cached_property
    def runner_by_key(self) -> dict[RunnerKey, RunnerSettings]:
        """Runners by identity."""
        return {each.key: each for each in self.runners}

    @cached_property
    def held_runners(self) -> frozenset[RunnerKey]:
        """Runners that the file names: none of them is to be retired."""
        return frozenset(self.runner_by_key) | {each.key for each in self.stopped}

    @cached_property
    def held_pools(self) -> frozenset[PoolName]:
        """Pools that the file names: none of them is to be retired."""
        return frozenset(self.pool_by_name) | {each.pool for each in self.stopped if each.pool is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What reading the file brought.

    Attributes:
        settings: None when an `error` makes the file unusable.
        content_hash: of the bytes that were read; None when there were none. Equal to `Saved.content_hash` when the
            file is as we wrote it.
    """

    path: str
    settings: Settings | None
    problems: tuple[Problem, ...] = ()
    content_hash: str | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What makes the file, or an entry of it, unusable."""
        return tuple(each for each in self.problems if each.severity is not Severity.WARNING)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is perhaps not as its author thinks."""
        return tuple(each for each in self.problems if each.severity is Severity.WARNING)

    def lines(self) -> list[str]:
        """All problems as `file:line: severity: message`."""
        return render(self.problems, self.path)


def content_hash(content: bytes) -> str:
    """Tells one content of the file from another."""
    return hashlib.sha256(content).hexdigest()
