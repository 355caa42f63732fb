"""Azure for fleet: the hooks.

Rule: this module is imported by every manager that starts, so Azure's libraries are imported only when a hook is asked
for.
"""

from __future__ import annotations

from fleet.sdk import AzureSecret, CacheSetting, CacheStore, SecretRequest, SecretValue, hookimpl


@hookimpl
def fleet_cache_store(kind: str, setting: CacheSetting) -> CacheStore | None:
    """A cache store on Blob Storage."""
    if kind != "azure":
        return None
    from fleet_azure.cache import AzureCacheStore  # noqa: PLC0415  Azure's libraries take half a second

    return AzureCacheStore(setting)


@hookimpl
def fleet_secret(request: SecretRequest) -> SecretValue | None:
    """A secret in an Azure Key Vault."""
    if not isinstance(request, AzureSecret):
        return None
    from fleet_azure.secrets import fetch  # noqa: PLC0415  Azure's libraries take half a second

    return fetch(request)
