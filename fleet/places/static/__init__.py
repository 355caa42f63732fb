"""The place `static`: hosts that are given, never created and never deleted. See `fleet.places.static.provider`."""

from __future__ import annotations

from fleet.places.static.provider import StaticProvider
from fleet.sdk import Provider, ProviderSetting, hookimpl


@hookimpl
def fleet_provider(plugin: str, setting: ProviderSetting) -> Provider | None:
    """The provider for `plugin = "static"`."""
    return StaticProvider(setting) if plugin == "static" else None
