"""Google Cloud for fleet: the hooks.

Rule: this module is imported by every manager that starts, so Google's libraries are imported only when a hook is
asked for.
"""

from __future__ import annotations

from fleet.sdk import CacheSetting, CacheStore, GcpSecret, SecretRequest, SecretValue, hookimpl


@hookimpl
def fleet_cache_store(kind: str, setting: CacheSetting) -> CacheStore | None:
    """A cache store on Cloud Storage."""
    if kind != "gcs":
        return None
    from fleet_gcp.cache import GcsCacheStore  # noqa: PLC0415  Google's libraries take a second

    return GcsCacheStore(setting)


@hookimpl
def fleet_secret(request: SecretRequest) -> SecretValue | None:
    """A secret in Google Cloud's Secret Manager."""
    if not isinstance(request, GcpSecret):
        return None
    from fleet_gcp.secrets import fetch  # noqa: PLC0415  Google's libraries take a second

    return fetch(request)
