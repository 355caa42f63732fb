"""The place `local`: machines that are processes of this host. See `fleet.places.local.provider`."""

from __future__ import annotations

from fleet.sdk import Provider, ProviderSetting, hookimpl


@hookimpl
def fleet_provider(plugin: str, setting: ProviderSetting) -> Provider | None:
    """The provider for `plugin = "local"`."""
    if plugin != "local":
        return None
    # A machine's process imports this package too and must start fast: it needs no provider.
    from fleet.places.local.provider import LocalProvider  # noqa: PLC0415  the reason stands above

    return LocalProvider(setting)
