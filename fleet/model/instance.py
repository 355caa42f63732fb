"""An instance as rows show it, for the hands that act on machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fleet.model.ids import InstanceId, PoolName, RequestId
from fleet.model.lifecycle import InstanceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance, requested or real.

    Attributes:
        machine_id: the provider's identity of it; None while nobody knows one.
        address: host, port, user and whatever else it takes to reach it; empty while unknown.
        host_keys: the public keys it may present; none means that it cannot be trusted.
        facts: what the agent said of the machine.
        leases: how many active leases it has.
        attempts: how often a hand has tried its present step.
    """

    instance_id: InstanceId
    pool: PoolName
    request_id: RequestId
    placement: str
    state: InstanceState
    state_at: datetime
    state_by: datetime | None
    created_at: datetime
    machine_id: str | None = None
    observed: str | None = None
    missed_listings: int = 0
    address: Mapping[str, Any] = field(default_factory=dict)
    host_keys: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    unreachable_since: datetime | None = None
    unhealthy: str | None = None
    no_room: str | None = None
    due_at: datetime | None = None
    attempts: int = 0
    leases: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """An intent to have machines that the provider has not answered yet.

    Attributes:
        parameters: exactly what the provider is asked, secrets included.
        attempts: how often it was asked.
    """

    request_id: RequestId
    pool: PoolName
    placement: str
    count: int
    parameters: Mapping[str, Any] = field(repr=False)
    attempts: int = 0
    created_at: datetime
