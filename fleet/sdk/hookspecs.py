"""The hooks through which plugins take part, found by the entry point group `fleet.providers`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from fleet.sdk.cache import CacheSetting, CacheStore
from fleet.sdk.provider import Provider
from fleet.sdk.secrets import SecretRequest, SecretValue

PROJECT = "fleet"
ENTRY_POINTS = "fleet.providers"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSetting:
    """What a plugin is given to make a provider.

    Attributes:
        pool: the pool's name, for messages.
        plugin_config: the pool's `plugin_config` table as written.
        placements: every placement table of the pool; one without settings when the pool names none.
        state_dir: a directory of this manager for what a built-in place keeps on this host.
        store_id: the random identity of our store; goes on machines as the tag `fleet-store`.
    """

    pool: str
    plugin_config: Mapping[str, Any]
    placements: tuple[Mapping[str, Any], ...]
    state_dir: str
    store_id: str


@hookspec(firstresult=True)
def fleet_provider(plugin: str, setting: ProviderSetting) -> Provider | None:
    """Make the provider for `plugin`, or return None when the name is not yours.

    Raises:
        BadParameters: `plugin_config` or a placement is wrong; the message names the key.
    """


@hookspec(firstresult=True)
def fleet_cache_store(kind: str, setting: CacheSetting) -> CacheStore | None:
    """Make the cache store of a runner, or return None when the kind is not yours.

    Args:
        kind: `Type` of `[runners.cache]`: `s3`, `gcs` or `azure`.
        setting: the table of that kind.

    Raises:
        BadParameters: the table is wrong; the message names the key.
    """


@hookspec(firstresult=True)
def fleet_secret(request: SecretRequest) -> SecretValue | None:
    """Fetch one secret of a job, or return None when its kind is not yours.

    Any thread may call it, and a call that hangs holds up the machine of its job: all that it does must end within
    `request.timeout_s`. It is called again where a job wants several attempts, so it does not try again itself.

    Raises:
        SecretDenied: a person must mend the job or a permission; the message says which.
        SecretNotFound: there is no such secret, version or field.
        SecretUnavailable: nobody answered, or the provider broke.
        SecretError: anything else.
    """
