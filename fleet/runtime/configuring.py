"""Brings a configuration into force: at the start, and again at every reload.

What the file names is stored with its settings and made ready; what it names no more is retired, keeps its stored
settings, and is let go when its jobs are done. Jobs that run keep what they were started with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from fleet.machine.keys import make_key_pair
from fleet.model.ids import PoolName, RunnerKey
from fleet.runtime.cache_stores import warn_of_missing
from fleet.runtime.providers import Plugins
from fleet.sdk import FleetError, Provider
from fleet.settings.pools import PoolSettings, fingerprint_after
from fleet.settings.runner import RunnerSettings, short_token
from fleet.settings.section import REVEAL
from fleet.settings.settings import Settings
from fleet.store import pools as rows
from fleet.store.book import Book, Pool, Runner
from fleet.store.database import Store, Tx

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Configurator:
    """Applies settings to the store and the book."""

    store: Store
    book: Book
    plugins: Plugins
    state_dir: str
    stopped: dict[str, str] = field(default_factory=dict)
    _providers: dict[tuple[PoolName, str], Provider] = field(default_factory=dict)

    def apply(self, settings: Settings) -> None:
        """Bring `settings` into force. On return the book shows them.

        Raises:
            FleetError: a pool that works would be left without a provider; nothing was changed.
        """
        for pool in settings.pools:
            self._prove(pool)
        warn_of_missing(settings.runners, self.plugins.names)
        self.stopped = {str(each.key): each.reason for each in settings.stopped}
        self.store.write(lambda tx: self._store(tx, settings))
        self.refresh()

    def refresh(self) -> None:
        """Make the book anew from the rows; providers whose settings did not change are kept."""
        found, entries = self.store.read(lambda tx: (rows.all_pools(tx), rows.all_runners(tx)))
        before = dict(self._providers)
        self._providers.clear()
        pools = {row.pool: self._pool(row, before) for row in found}
        runners = {RunnerKey(row.runner_key): _runner(row, self.stopped.get(row.runner_key)) for row in entries}
        self.book.replace(pools, runners)
        for key, provider in before.items():
            if key not in self._providers:
                provider.close()

    def close(self) -> None:
        """Let go of every provider. No machine is touched."""
        for provider in self._providers.values():
            provider.close()
        self._providers.clear()

    def _store(self, tx: Tx, settings: Settings) -> None:
        known = {row.pool: row for row in rows.all_pools(tx)}
        for pool in settings.pools:
            if pool.fleet.renamed_from and rows.rename_pool(tx, pool.fleet.renamed_from, pool.name):
                known = {row.pool: row for row in rows.all_pools(tx)}
            old = known.get(pool.name)
            before = None if old is None else PoolSettings.model_validate(old.settings)
            pair = make_key_pair()
            rows.put_pool(
                tx,
                pool.name,
                plugin=pool.plugin,
                settings=pool.model_dump(mode="json", context=REVEAL),
                fingerprint=fingerprint_after(before, old.fingerprint if old else None, pool),
                keys=(pair.private, pair.public),
            )
        for name in set(known) - settings.held_pools:
            rows.retire_pool(tx, name)
        newer = {row.runner_key: row for row in rows.all_runners(tx)}
        for runner in settings.runners:
            _store_runner(tx, runner, newer.get(runner.key))
        for key in set(newer) - {str(each) for each in settings.held_runners}:
            rows.retire_runner(tx, key)

    def _prove(self, pool: PoolSettings) -> None:
        """Make the provider of a pool whose settings changed before they are stored; `refresh` takes it over."""
        key = _key(pool)
        if key not in self._providers and any(name == pool.name for name, _ in self._providers):
            self._providers[key] = self._make(pool)

    def _make(self, pool: PoolSettings) -> Provider:
        return self.plugins.provider(pool, state_dir=self.state_dir, store_id=self.book.store_id)

    def _pool(self, row: rows.PoolRow, before: dict[tuple[PoolName, str], Provider]) -> Pool:
        settings = PoolSettings.model_validate(row.settings)
        key = _key(settings)
        provider, problem = before.get(key), None
        if provider is None:
            try:
                provider = self._make(settings)
            except FleetError as exc:
                problem = str(exc)
                log.error("provider_not_made", pool=row.pool, plugin=row.plugin, error=problem)
        if provider is not None:
            self._providers[key] = provider
        info = None if provider is None else provider.info()
        return Pool(
            name=row.pool,
            limits=settings.limits(
                settings_version=row.settings_version,
                retired=row.retired_at is not None,
                account=None if info is None else info.account,
            ),
            settings=settings,
            provider=provider,
            info=info,
            problem=problem,
            client_key=row.client_key,
            client_public_key=row.client_public_key,
            retired=row.retired_at is not None,
        )


def _key(pool: PoolSettings) -> tuple[PoolName, str]:
    """What a provider was made from; another text is another provider."""
    return pool.name, repr((pool.plugin, pool.plugin_config, pool.placement_tables))


def _store_runner(tx: Tx, runner: RunnerSettings, old: rows.RunnerRow | None) -> None:
    token, obtained, expires = runner.token.get_secret_value(), runner.token_obtained_at, runner.token_expires_at
    if old is not None and old.token_obtained_at and (obtained is None or old.token_obtained_at > obtained):
        # a rotation was stored and the file could not be written: the newer one wins
        token, obtained, expires = old.token, old.token_obtained_at, old.token_expires_at
    rows.put_runner(
        tx,
        runner.key,
        name=runner.name,
        url=runner.url,
        pool=runner.pool,
        settings=runner.model_dump(mode="json", context=REVEAL),
        token=token,
        obtained_at=obtained,
        expires_at=expires,
    )


def _runner(row: rows.RunnerRow, stopped: str | None) -> Runner:
    return Runner(
        key=RunnerKey(row.runner_key),
        settings=RunnerSettings.model_validate(row.settings),
        token=row.token,
        short_token=short_token(row.token),
        pool=PoolName(row.pool),
        retired=row.retired_at is not None,
        stopped=stopped,
    )
