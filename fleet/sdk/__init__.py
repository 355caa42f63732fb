"""The front door for plugin authors: import from here and from nowhere else of fleet."""

from fleet.sdk.errors import (
    BadParameters,
    CredentialsRefused,
    FleetError,
    OutOfCapacity,
    ProviderError,
    ProviderUnavailable,
    QuotaExceeded,
    Scope,
    Throttled,
)
from fleet.sdk.hookspecs import ENTRY_POINTS, ProviderSetting, hookimpl
from fleet.sdk.provider import (
    TAG_POOL,
    TAG_REQUEST,
    TAG_STORE,
    Abilities,
    Created,
    CreateRequest,
    HostKey,
    Machine,
    MachineState,
    Provider,
    ProviderInfo,
)

__all__ = [
    "ENTRY_POINTS",
    "TAG_POOL",
    "TAG_REQUEST",
    "TAG_STORE",
    "Abilities",
    "BadParameters",
    "CreateRequest",
    "Created",
    "CredentialsRefused",
    "FleetError",
    "HostKey",
    "Machine",
    "MachineState",
    "OutOfCapacity",
    "Provider",
    "ProviderError",
    "ProviderInfo",
    "ProviderSetting",
    "ProviderUnavailable",
    "QuotaExceeded",
    "Scope",
    "Throttled",
    "hookimpl",
]
