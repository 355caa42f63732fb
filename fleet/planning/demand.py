"""What a pool should hold: the policy in force and the idle target that follows from it.

The rules are GitLab's: the last matching policy wins and nothing is merged; `idle_count` counts free job slots; with
`scale_factor` the target grows with the slots in use, `scale_factor_limit` bounds that product and `idle_count` is the
least. In use are leases and waiting jobs together, so that a waiting job which gets its slot changes no target.

Where no policy matches, nothing free is wanted and nothing leased is touched. How long a free machine may then stay is
said by none; the longest `idle_time` written for the pool holds, since a gap between periods is no wish for haste.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from fleet.model.policy import Policy, PoolLimits
from fleet.model.snapshot import PoolSnapshot
from fleet.planning import periods

_NO_POLICY = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The wishes in force for one pool at one moment.

    Attributes:
        index: which policy, None for none.
        idle_target: free slots wanted.
        idle_time: how long a machine above the target may stay free.
        preemptive: jobs are asked for only where a ready slot is free.
    """

    index: int | None
    policy: Policy
    idle_target: int
    idle_time: timedelta
    preemptive: bool


def weigh(snapshot: PoolSnapshot, leased: int) -> Demand:
    """The demand of a pool beyond its leases and waiting jobs."""
    limits = snapshot.limits
    if limits.retired or limits.fixed_inventory:
        # no wish of a policy applies: the one is emptied, the other is what it is; polls count on ready slots alone
        return Demand(index=None, policy=_NO_POLICY, idle_target=0, idle_time=timedelta(0), preemptive=True)
    index = periods.in_force(limits.policies, snapshot.now + snapshot.calendar_ahead)
    policy = _NO_POLICY if index is None else limits.policies[index]
    return Demand(
        index=index,
        policy=policy,
        idle_target=idle_target(policy, leased + len(snapshot.waiting)),
        idle_time=_longest_idle_time(limits) if index is None else policy.idle_time,
        preemptive=is_preemptive(policy),
    )


def idle_target(policy: Policy, in_use: int) -> int:
    """Free slots wanted while `in_use` slots are leased or owed."""
    scaled = math.ceil(round(policy.scale_factor * in_use, 6)) if policy.scale_factor > 0 else 0
    if policy.scale_factor_limit > 0:
        scaled = min(scaled, policy.scale_factor_limit)
    return max(policy.idle_count, scaled)


def is_preemptive(policy: Policy) -> bool:
    """Whether jobs are asked for only where a ready slot is free."""
    return policy.idle_count > 0 if policy.preemptive_mode is None else policy.preemptive_mode


def _longest_idle_time(limits: PoolLimits) -> timedelta:
    return max((policy.idle_time for policy in limits.policies), default=timedelta(0))
