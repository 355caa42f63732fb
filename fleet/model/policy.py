"""What a pool should be like: policies, placements and limits, as values that planning reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fleet.model.ids import PoolName


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One `[[runners.autoscaler.policy]]`: how many free slots to keep, and when this policy holds.

    Attributes:
        periods: five-field cron expressions read as ranges: the policy holds in every minute that matches one.
        timezone: IANA name.
        idle_count: free job slots wanted.
        idle_time: how long a machine beyond the idle target may stay free.
        scale_factor: idle target as a multiple of the slots in use; 0 switches it off.
        scale_factor_limit: the most that `scale_factor` may ask for; 0 is no limit.
        preemptive_mode: jobs are asked for only when a ready free slot exists; None means `idle_count > 0`.
    """

    periods: tuple[str, ...] = ("* * * * *",)
    timezone: str = "UTC"
    idle_count: int = 0
    idle_time: timedelta = timedelta(0)
    scale_factor: float = 0.0
    scale_factor_limit: int = 0
    preemptive_mode: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and what to create; a pool has an ordered list.

    Attributes:
        name: unique in the pool.
        max_instances: the most machines here; 0 is no limit.
        scopes: the cool-down keys that stop this placement, e.g. ("placement:p/a", "zone:aws/eu-1a", "account:aws/1").
    """

    name: str
    max_instances: int = 0
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """`scale_throttle`: a token bucket in front of creation.

    Attributes:
        per_s: machines a second; 0 or less is no limit.
        burst: the bucket's size; 0 is no limit.
    """

    per_s: float = 100.0
    burst: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """What planning must know of a pool's settings.

    Attributes:
        capacity_per_instance: slots of one machine.
        max_instances: machines in every state but gone; 0 is no limit.
        max_use_count: jobs one machine may run in its life; 0 is no limit.
        max_age: how old a machine may become; None is no limit.
        fixed_inventory: machines are given, never created for demand nor deleted for idleness.
        settings_version: grows whenever a change makes existing machines outdated.
    """

    name: PoolName
    capacity_per_instance: int = 1
    max_instances: int = 0
    max_use_count: int = 0
    max_age: timedelta | None = None
    policies: tuple[Policy, ...] = ()
    placements: tuple[Placement, ...] = (Placement(name="default"),)
    throttle: Throttle = field(default_factory=Throttle)
    fixed_inventory: bool = False
    retired: bool = False
    settings_version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CoolDown:
    """A scope that is not to be tried before `until`.

    Attributes:
        scope: e.g. "zone:aws/eu-1a"; a placement lists the scopes that stop it.
        until: first instant at which it may be tried again.
        failures: how many failures in a row; the back-off grows with it.
        reason: what the provider said.
    """

    scope: str
    until: datetime
    failures: int
    reason: str
