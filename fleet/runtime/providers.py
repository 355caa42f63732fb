"""Finds provider plugins by their entry points and makes the provider of each pool."""

from __future__ import annotations

from pathlib import Path

import pluggy
import structlog

from fleet.sdk import ENTRY_POINTS, FleetError, Provider, ProviderSetting
from fleet.sdk import hookspecs as specs
from fleet.settings.pools import PoolSettings

log = structlog.get_logger(__name__)


class NoSuchPlugin(FleetError):
    """No installed plugin makes providers of this name."""

    slug = "no_such_plugin"


class Plugins:
    """The installed plugins."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(specs.PROJECT)
        self._manager.add_hookspecs(specs)
        self._manager.load_setuptools_entrypoints(ENTRY_POINTS)
        self._manager.check_pending()

    @property
    def names(self) -> list[str]:
        """The entry points that were found."""
        return sorted(str(name) for name, _ in self._manager.list_name_plugin())

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
