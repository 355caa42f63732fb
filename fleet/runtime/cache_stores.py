"""The stores of caches that runners name, each made once by its plugin.

Rule: made when the first job needs it, in that job's lane: an SDK takes a second to import, and credentials may have to
be fetched. One that could not be made is tried again a minute later. Whatever a plugin raises is told as ours.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from fleet.execution.signing import NoCacheStore
from fleet.runtime.providers import Plugins
from fleet.sdk import CacheMethod, CacheSetting, CacheStore, FleetError, SignedUrl
from fleet.settings.cache import KINDS, PLUGINS, problem_of
from fleet.settings.runner import RunnerSettings
from fleet.store.book import Runner

log = structlog.get_logger(__name__)
AGAIN_S = 60.0
MOST = 200


class CacheStoreBroken(FleetError):
    """The plugin of a cache store failed in a way that it does not know itself."""

    slug = "cache_store_broken"


def warn_of_missing(runners: Iterable[RunnerSettings], installed: Collection[str]) -> None:
    """Warn of runners whose plugin is not installed; their jobs go without a remote cache."""
    for runner in runners:
        kind = runner.cache.kind
        if kind in KINDS and PLUGINS[kind] not in installed:
            log.warning("cache_plugin_missing", runner=runner.shown_as, kind=kind, install=_package(kind))


@dataclass(slots=True)
class CacheStores:
    """All stores of this manager. Thread-safe."""

    plugins: Plugins
    _made: dict[str, CacheStore] = field(default_factory=dict)
    _failed: dict[str, tuple[float, FleetError]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, runner: Runner) -> CacheStore:
        """The store that a runner's jobs use.

        Raises:
            NoCacheStore: it names none (then without a word), or it cannot be had.
            FleetError: what its plugin says.
        """
        cache = runner.settings.cache
        if cache.kind is None:
            raise NoCacheStore("")
        problem = problem_of(cache)
        if problem is not None:
            raise NoCacheStore(f"there is no remote cache: {problem}")
        given = cache.given()
        key = f"{cache.kind} {json.dumps(given, sort_keys=True)}"
        with self._lock:
            if key not in self._made:
                self._raise_again(key)
                self._made[key] = self._make(
                    cache.kind, CacheSetting(runner=runner.settings.shown_as, table=given), key
                )
            return self._made[key]

    def _raise_again(self, key: str) -> None:
        until, exc = self._failed.get(key, (0.0, None))
        if exc is not None and time.monotonic() < until:
            raise exc

    def _make(self, kind: str, setting: CacheSetting, key: str) -> CacheStore:
        for kept in (self._made, self._failed):
            if len(kept) >= MOST:
                kept.clear()
        try:
            made = self.plugins.cache_store(kind, setting)
            if made is None:
                raise NoCacheStore(f"there is no remote cache: this manager lacks the plugin, {_package(kind)}")
        except FleetError as exc:
            log.warning("cache_store_not_made", runner=setting.runner, kind=kind, error=str(exc))
            self._failed[key] = time.monotonic() + AGAIN_S, exc
            raise
        return _Careful(made, setting.runner)


class _Careful:
    """A store whose plugin may be wrong."""

    def __init__(self, store: CacheStore, runner: str) -> None:
        self._store = store
        self._runner = runner

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        try:
            return self._store.sign(method, name, now=now, valid_s=valid_s)
        except FleetError:
            raise
        except Exception as exc:  # noqa: BLE001  a plugin's call: no job may fail for its cache
            log.error("cache_plugin_failed", runner=self._runner, error=type(exc).__name__)
            raise CacheStoreBroken(f"the plugin of the cache store failed: {type(exc).__name__}") from None

    def close(self) -> None:
        self._store.close()


def _package(kind: str) -> str:
    return f"fleetctl-{PLUGINS[kind]}"
