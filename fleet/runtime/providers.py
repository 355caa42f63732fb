"""Finds provider plugins by their entry points and makes the provider of each pool."""

from __future__ import annotations

from pathlib import Path

import pluggy
import structlog

from fleet.runtime import vault
from fleet.sdk import (
    ENTRY_POINTS,
    CacheSetting,
    CacheStore,
    FleetError,
    Provider,
    ProviderError,
    ProviderSetting,
    SecretDenied,
    SecretError,
    SecretRequest,
    SecretValue,
)
from fleet.sdk import hookspecs as specs
from fleet.settings.pools import PoolSettings

log = structlog.get_logger(__name__)
SECRETS_OF = {
    "aws_secrets_manager": "fleetctl-aws", "gcp_secret_manager": "fleetctl-gcp", "azure_key_vault": "fleetctl-azure",
}  # fmt: skip


class NoSuchPlugin(FleetError):
    """No installed plugin makes providers of this name."""

    slug = "no_such_plugin"


class Plugins:
    """The installed plugins."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(specs.PROJECT)
        self._manager.add_hookspecs(specs)
        self._manager.load_setuptools_entrypoints(ENTRY_POINTS)
        self._manager.register(vault)
        self._manager.check_pending()

    @property
    def names(self) -> list[str]:
        """The entry points that were found."""
        return sorted(str(self._manager.get_name(plugin)) for plugin, _ in self._manager.list_plugin_distinfo())

    def cache_store(self, kind: str, setting: CacheSetting) -> CacheStore | None:
        """Make a cache store; None when no installed plugin makes such.

        Raises:
            FleetError: its table is wrong, or the plugin broke.
        """
        try:
            made: CacheStore | None = self._manager.hook.fleet_cache_store(kind=kind, setting=setting)
        except FleetError:
            raise
        except Exception as exc:  # noqa: BLE001  a plugin's call: its own words may hold a key, so none is repeated
            raise ProviderError(f"the plugin for {kind} caches broke ({type(exc).__name__})") from None
        return made

    def provider(self, pool: PoolSettings, *, state_dir: str, store_id: str) -> Provider:
        """Make the provider of a pool.

        Raises:
            BadParameters: its `plugin_config` or a placement is wrong.
            NoSuchPlugin: nobody knows the name.
        """
        setting = ProviderSetting(
            pool=pool.name,
            plugin_config=pool.plugin_config,
            placements=pool.placement_tables,
            state_dir=str(Path(state_dir)),
            store_id=store_id,
        )
        made: Provider | None = self._manager.hook.fleet_provider(plugin=pool.plugin, setting=setting)
        if made is None:
            raise NoSuchPlugin(
                f"pool {pool.name}: no plugin makes {pool.plugin!r} providers; installed are {', '.join(self.names)}; "
                f"perhaps: pip install fleetctl-{pool.plugin}"
            )
        return made

    def secret(self, request: SecretRequest) -> SecretValue:
        """Fetch a job's secret from whoever knows its provider.

        Raises:
            SecretError: it could not be fetched, or nobody knows the provider.
        """
        try:
            found: SecretValue | None = self._manager.hook.fleet_secret(request=request)
        except SecretError:
            raise
        except Exception as exc:  # noqa: BLE001  a plugin's call: its own words may hold the secret, so none is repeated
            log.error("secret_plugin_failed", provider=request.provider, error=type(exc).__name__)
            raise SecretError(
                f"the plugin for {request.provider} broke ({type(exc).__name__}): tell whoever keeps this runner"
            ) from None
        if found is None:
            package = SECRETS_OF.get(request.provider, "a plugin for it")
            raise SecretDenied(f"nobody on this runner fetches from {request.provider}: install {package} there")
        return found
