"""The place `host`: the manager's own host, exactly one machine, reached over a pipe and without SSH.

Jobs run here as whom the agent drops to; whether that may be the manager's own user is the manager's to decide. The
agent keeps its state under the manager's state directory, apart from the user's own files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fleet.sdk import (
    TAG_POOL,
    TAG_STORE,
    Abilities,
    BadParameters,
    Created,
    CreateRequest,
    Machine,
    MachineState,
    PipeEndpoint,
    Provider,
    ProviderInfo,
    ProviderSetting,
    hookimpl,
)

MACHINE_ID = "host"


@hookimpl
def fleet_provider(plugin: str, setting: ProviderSetting) -> Provider | None:
    """The provider for `plugin = "host"`."""
    return HostProvider(setting) if plugin == "host" else None


class HostProvider:
    """The one machine that is always there."""

    def __init__(self, setting: ProviderSetting) -> None:
        for key in setting.plugin_config:
            raise BadParameters(
                f"pool {setting.pool!r}: plugin_config.{key} is no setting of the plugin host; it has none"
            )
        self._pool = setting.pool
        self._machine = Machine(
            machine_id=MACHINE_ID,
            state=MachineState.RUNNING,
            tags={TAG_STORE: setting.store_id, TAG_POOL: setting.pool},
            address_internal="localhost",
            address_external="localhost",
            endpoint=PipeEndpoint(home=str(Path(setting.state_dir).absolute() / "host")),
        )

    def info(self) -> ProviderInfo:
        return ProviderInfo(
            name="host",
            account=f"host:{self._pool}",
            visibility_lag_s=0.0,
            call_timeout_s=10.0,
            abilities=Abilities(fixed_inventory=True, survives_dead_man=False),
        )

    def create(self, request: CreateRequest) -> Created:  # noqa: ARG002  the contract's shape
        raise BadParameters("this host exists already; no other can be created by the plugin host")

    def list(self) -> Iterator[Machine]:
        return iter([self._machine])

    def delete(self, machine_ids: Sequence[str]) -> None:
        """Nothing to do: the host is let go, not deleted."""

    def close(self) -> None:
        """Nothing is held."""
