"""What the manager knows of its pools and runners at this moment: replaced as a whole at every reload.

Rooms read it and never keep what they read across an activation.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fleet.model.ids import PoolName, RunnerKey
from fleet.model.policy import PoolLimits
from fleet.sdk import Provider, ProviderInfo, Scope
from fleet.settings.pools import PoolSettings
from fleet.settings.runner import RunnerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool with everything its hands need.

    Attributes:
        limits: what planning reads, with the store's settings version.
        provider: None while it cannot be made; `problem` says why.
        client_key: private key that logs in to its machines.
        retired: the configuration no longer names it.
    """

    name: PoolName
    limits: PoolLimits
    settings: PoolSettings
    provider: Provider | None
    info: ProviderInfo | None
    problem: str | None
    client_key: str = field(repr=False)
    client_public_key: str
    retired: bool = False

    def scopes_of(self, placement: str) -> tuple[str, ...]:
        """The cool-downs that stop a placement."""
        return next((each.scopes for each in self.limits.placements if each.name == placement), ())

    @property
    def api_key(self) -> str:
        """The cool-down of the provider's API: while it lasts, nothing new is asked of it."""
        account = self.info.account if self.info is not None else "default"
        return f"{Scope.API}:{self.settings.plugin}/{account}"

    def scope_key(self, placement: str, scope: Scope) -> str:
        """The cool-down that an error of this scope starts; a scope that the placement cannot name is its own."""
        if scope is Scope.API:
            return self.api_key
        known = (key for key in self.scopes_of(placement) if key.startswith(f"{scope}:"))
        return next(known, f"placement:{self.name}/{placement}")

    def placement_table(self, placement: str) -> Mapping[str, Any]:
        """The placement as the plugin is given it."""
        tables = self.settings.placement_tables
        return next((each for each in tables if each["name"] == placement), {"name": placement})


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A runner with its token of now.

    Attributes:
        stopped: why its entry cannot be used as the file is now; its jobs go on, it asks for no more.
    """

    key: RunnerKey
    settings: RunnerSettings
    token: str = field(repr=False)
    short_token: str
    pool: PoolName
    retired: bool = False
    stopped: str | None = None


class Book:
    """Pools and runners of now. Thread-safe."""

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id
        self._lock = threading.Lock()
        self._pools: Mapping[PoolName, Pool] = MappingProxyType({})
        self._runners: Mapping[RunnerKey, Runner] = MappingProxyType({})
        self._owned: Mapping[str, int] = MappingProxyType({})

    @property
    def pools(self) -> Mapping[PoolName, Pool]:
        """Every pool that is in the store, retired ones included."""
        return self._pools

    @property
    def runners(self) -> Mapping[RunnerKey, Runner]:
        """Every runner that is in the store, retired ones included."""
        return self._runners

    @property
    def owned(self) -> Mapping[str, int]:
        """The pools whose hands are ours: pool -> epoch of our claim."""
        return self._owned

    def replace(self, pools: Mapping[PoolName, Pool], runners: Mapping[RunnerKey, Runner]) -> None:
        """Put a whole new state in place."""
        with self._lock:
            self._pools = MappingProxyType(dict(pools))
            self._runners = MappingProxyType(dict(runners))

    def replace_runner(self, runner: Runner) -> None:
        """Put one runner in place: its token was renewed."""
        with self._lock:
            self._runners = MappingProxyType({**self._runners, runner.key: runner})

    def set_owned(self, owned: Mapping[str, int]) -> None:
        """Note which pools are ours."""
        self._owned = MappingProxyType(dict(owned))
