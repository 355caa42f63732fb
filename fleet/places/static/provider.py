"""The place `static`: the given hosts are the listing, always all of them, and nothing is made or removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleet.places.static.hosts import Host, read_hosts
from fleet.sdk import (
    TAG_POOL,
    TAG_STORE,
    Abilities,
    BadParameters,
    Created,
    CreateRequest,
    Machine,
    MachineState,
    ProviderInfo,
    ProviderSetting,
)


class StaticProvider:
    """The hosts of one pool. A host's name is its machine id, for as long as the configuration says so."""

    def __init__(self, setting: ProviderSetting) -> None:
        self._pool = setting.pool
        self._tags = {TAG_STORE: setting.store_id, TAG_POOL: setting.pool}
        self._hosts = read_hosts(setting.plugin_config, setting.pool)

    def info(self) -> ProviderInfo:
        return ProviderInfo(
            name="static",
            account=f"static:{self._pool}",
            visibility_lag_s=0.0,
            call_timeout_s=10.0,
            max_batch=len(self._hosts),
            abilities=Abilities(
                tells_host_key=all(host.endpoint.host_keys for host in self._hosts),
                fixed_inventory=True,
                survives_dead_man=False,
            ),
        )

    def create(self, request: CreateRequest) -> Created:  # noqa: ARG002  the contract's shape
        raise BadParameters(
            f"pool {self._pool!r} has the hosts that plugin_config.hosts names; none can be created. Add hosts there"
        )

    def list(self) -> Iterator[Machine]:
        return iter([self._machine(host) for host in self._hosts])

    def delete(self, machine_ids: Sequence[str]) -> None:
        """A given host is let go, not deleted: whoever asks forgets it, and it stays in the listing."""

    def close(self) -> None:
        """Nothing is held."""

    def _machine(self, host: Host) -> Machine:
        endpoint = host.endpoint
        return Machine(
            machine_id=host.name,
            state=MachineState.RUNNING,
            tags=self._tags,
            address_internal=endpoint.host,
            address_external=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            host_key=endpoint.host_keys[0] if endpoint.host_keys else None,
            endpoint=endpoint,
        )
