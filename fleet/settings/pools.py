"""What a pool is in the end: one name, one table, everything resolved.

A pool's name is `[runners.autoscaler.fleet] pool`, else the identity of the runner that defines it. Several runners
share one by its name; jobs on this host all share the pool `host`.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any

from pydantic import Field

from fleet.model.ids import PoolName, RunnerKey
from fleet.model.policy import Placement, Policy, PoolLimits, Throttle
from fleet.settings.autoscaler import AutoscalerTable, PlacementTable, PoolTable
from fleet.settings.durations import Duration
from fleet.settings.section import REVEAL

HOST_POOL = PoolName("host")
ALIASES = {"googlecloud": "gcp", "googlecompute": "gcp", "google": "gcp"}
FASTEST_PER_S = 100
WHERE = {  # a placement's own keys -> the scope that a provider's error may speak of
    "zone": ("zone", "availability_zone", "location"),
    "region": ("region",),
    "type": ("instance_type", "machine_type", "vm_size", "type"),
}


class PoolKind(StrEnum):
    """Where a pool's machines come from."""

    AUTOSCALED = "autoscaled"
    STATIC = "static"
    HOST = "host"


class PoolKeys(PoolTable):
    """`[runners.autoscaler.fleet]` with what `[fleet]` says where it is silent."""

    agent_timeout: Duration
    """As in `[fleet]`, for this pool."""
    unreachable_timeout: Duration
    """As in `[fleet]`, for this pool."""
    allow_same_user: bool = False
    """As in `[fleet]`; of the pool `host` alone."""


class PoolSettings(AutoscalerTable):
    """One pool, ready to be used; `plugin` is the bare name, paths are absolute, policies are those that can hold."""

    name: PoolName
    """Its name in the store, in tags and in metrics."""
    kind: PoolKind = Field(strict=False)
    """Where its machines come from."""
    plugin: str
    """Bare name of the provider."""
    fleet: PoolKeys
    """Our own keys."""
    line: int | None = None
    """Line of the table that defines it."""
    runners: tuple[RunnerKey, ...] = Field(default=(), strict=False)
    """The runners whose jobs it runs."""

    @property
    def fixed_inventory(self) -> bool:
        """Its machines are given: never made, never deleted."""
        return self.kind is not PoolKind.AUTOSCALED

    @property
    def policies(self) -> tuple[Policy, ...]:
        """What planning reads; the last that matches holds."""
        return tuple(
            Policy(
                periods=each.periods,
                timezone=each.timezone or "UTC",
                idle_count=each.idle_count,
                idle_time=each.idle_time,
                scale_factor=each.scale_factor,
                scale_factor_limit=each.scale_factor_limit,
                preemptive_mode=each.preemptive_mode,
            )
            for each in self.policy
        )

    @property
    def placement_tables(self) -> tuple[dict[str, Any], ...]:
        """What the plugin is given; one that says nothing when the pool has none."""
        return tuple(each.as_written() for each in self.placements) or ({"name": "default"},)

    @property
    def instance_acquire_timeout_s(self) -> float:
        """How long a job may wait for a machine."""
        return self.instance_acquire_timeout.total_seconds()

    def limits(self, *, settings_version: int = 1, retired: bool = False, account: str | None = None) -> PoolLimits:
        """What planning must know.

        Args:
            settings_version: the store's.
            retired: the configuration no longer names the pool.
            account: `ProviderInfo.account`; scopes of the account cool down for every pool that uses it.
        """
        written = self.placements or (PlacementTable(name="default"),)
        return PoolLimits(
            name=self.name,
            capacity_per_instance=self.capacity_per_instance,
            max_instances=self.max_instances,
            max_use_count=self.max_use_count,
            max_age=self.fleet.max_age,
            policies=self.policies,
            placements=tuple(
                Placement(name=each.name, max_instances=each.max_instances, scopes=self.scopes(each, account))
                for each in written
            ),
            throttle=Throttle(
                per_s=float(self.scale_throttle.limit or FASTEST_PER_S),
                burst=self.scale_throttle.burst or self.max_instances,
            ),
            fixed_inventory=self.fixed_inventory,
            retired=retired,
            settings_version=settings_version,
        )

    def scopes(self, placement: PlacementTable, account: str | None) -> tuple[str, ...]:
        """The cool-downs that stop a placement: `placement:POOL/NAME`, `zone:PLUGIN/ZONE`, `account:PLUGIN/ACCOUNT`.

        Keys that the placement lacks are looked for in `plugin_config`, where a pool of one zone has them. An API that
        wants fewer calls is no reason to think less of a placement: its scope is not here.
        """
        keys = {**self.plugin_config, **placement.as_written()}
        found = [f"placement:{self.name}/{placement.name}"]
        for scope, names in WHERE.items():
            value = next((keys[name] for name in names if isinstance(keys.get(name), str)), None)
            if value is not None:
                found.append(f"{scope}:{self.plugin}/{value}")
        found += [f"{scope}:{self.plugin}/{account or 'default'}" for scope in ("account", "credentials")]
        return tuple(found)

    def fingerprint(self) -> str:
        """Changes when machines made before are outdated; see `outdating`."""
        return hashlib.sha256(json.dumps(self.outdating(), sort_keys=True).encode()).hexdigest()

    def outdating(self) -> dict[str, Any]:
        """What a machine is made with: when it changes, machines made before are outdated.

        Policies, limits, timeouts and prices are not here; nor is anything of a pool whose machines are given.
        """
        if self.fixed_inventory:
            return {}
        whole = self.model_dump(mode="json", context=REVEAL)
        connector = whole["connector_config"]
        return {
            "plugin": self.plugin,
            "plugin_config": whole["plugin_config"],
            "placements": {each["name"]: each for each in self.placement_tables},
            "instance_ready_command": self.instance_ready_command,
            "connector_config": {
                key: connector[key]
                for key in ("os", "arch", "username", "password", "key_path", "use_static_credentials")
            },
        }


def fingerprint_after(old: PoolSettings | None, old_fingerprint: str | None, new: PoolSettings) -> str:
    """The fingerprint to store: the old one while no existing machine is outdated.

    A placement that is only added outdates nothing; one that is changed or removed does.
    """
    if old is None or old_fingerprint is None:
        return new.fingerprint()
    if not outdated_by(old, new):
        return old_fingerprint
    # Chained, so that a placement that was added and is removed again outdates the machines made in between.
    return hashlib.sha256(f"{old_fingerprint} {new.fingerprint()}".encode()).hexdigest()


def outdated_by(old: PoolSettings, new: PoolSettings) -> tuple[str, ...]:
    """The keys whose change makes machines of `old` outdated; empty when they may stay."""
    before, after = old.outdating(), new.outdating()
    if not before or not after:
        return () if before == after else ("plugin",)
    found = [key for key in before if key != "placements" and before[key] != after[key]]
    if any(after["placements"].get(name) != table for name, table in before["placements"].items()):
        found.append("placements")
    return tuple(found)


def bare_plugin(text: str) -> str:
    """The plugin that `aws:latest`, `fleeting-plugin-aws` or `registry.example.com/a/b/aws:1.0` names."""
    name = text.rstrip("/").rsplit("/", 1)[-1]
    name = name.partition("@")[0].partition(":")[0].removeprefix("fleeting-plugin-")
    return ALIASES.get(name, name)
