"""What planning decided for one pool: a frozen value with a field per action, each action with its reason.

A plan holds no new ids: who applies it names requests and leases. Its parts are applied in the order of the fields:
creates, assigns, drains, deletes. `slug` is for metrics and scripts, `reason` for people; both go to the journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from fleet.model.ids import InstanceId, JobKey, PoolName


class Because(StrEnum):
    """The short name of a reason, one meaning each."""

    # why a machine is made
    JOBS_WAIT = "jobs_wait"
    IDLE_TARGET = "idle_target"
    # why a job gets this slot
    FULLEST = "fullest"
    LAST_RESORT = "last_resort"
    # why a machine goes
    UNHEALTHY = "unhealthy"
    OUTDATED = "outdated"
    OVER_AGE = "over_age"
    USED_UP = "used_up"
    RETIRED = "retired"
    SURPLUS = "surplus"
    MAKES_ROOM = "makes_room"
    IDLE = "idle"
    OVERDUE = "overdue"
    DRAINED = "drained"
    # why a job waits
    MACHINE_PENDING = "machine_pending"
    MACHINE_REQUESTED = "machine_requested"
    AT_MAX_INSTANCES = "at_max_instances"
    PLACEMENTS_FULL = "placements_full"
    COOLING_DOWN = "cooling_down"
    THROTTLED = "throttled"
    NO_FREE_SLOT = "no_free_slot"
    NO_HEALTHY_MACHINE = "no_healthy_machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Ask for `count` machines in `placement`."""

    placement: str
    count: int
    slug: Because
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Lease slot number `slot` of a ready instance to a waiting job."""

    job: JobKey
    instance_id: InstanceId
    slot: int
    slug: Because
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Ready -> draining: no new lease.

    Attributes:
        only_idle: the row must hold no lease at the moment of change, else the drain is dropped.
    """

    instance_id: InstanceId
    only_idle: bool
    slug: Because
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Draining, or a waiting state -> deleting. The row must hold no lease at the moment of change, always."""

    instance_id: InstanceId
    slug: Because
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A job that has no slot after this plan, and why.

    Attributes:
        until: when that may change by time alone; None when it depends on something else.
    """

    job: JobKey
    slug: Because
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The numbers a decision rests on, before its actions; in slots unless the name says instances.

    Attributes:
        acquired: slots with a lease.
        idle: free slots of ready instances that may get a job.
        pending: free slots of instances on their way to ready.
        unavailable_capacity: free slots that may get no job (unhealthy, used up, over age, draining).
        reserved: `asking` and `waiting` together.
        max_instance_count: 0 is no limit.
    """

    instance_count: int
    max_instance_count: int
    capacity_per_instance: int
    acquired: int
    idle: int
    pending: int
    unavailable_capacity: int
    reserved: int
    asking: int
    waiting: int
    idle_count: int
    scale_factor: float
    scale_factor_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with a pool now.

    Attributes:
        ask_limit: how many `asking` reservations the pool may hold in total; a poll that brings a job uses one up until
            the next plan.
        waits: one for each job that has no slot after this plan.
        policy: index of the policy in force; None when none matches or the pool follows none.
        preemptive: jobs are asked for only where a ready slot is free.
        idle_target: free slots wanted.
        desired_instances: machines that leases, waiting jobs and the idle target would fill.
        next_at: when time alone changes the plan; None when it does not within `periods.HORIZON`.
    """

    pool: PoolName
    inputs: Inputs
    ask_limit: int
    preemptive: bool
    idle_target: int
    desired_instances: int
    policy: int | None = None
    creates: tuple[Create, ...] = ()
    assigns: tuple[Assign, ...] = ()
    drains: tuple[Drain, ...] = ()
    deletes: tuple[Delete, ...] = ()
    waits: tuple[Wait, ...] = field(default=(), repr=False)
    next_at: datetime | None = None

    @property
    def changes_nothing(self) -> bool:
        """No action: applying it leaves the pool as it is."""
        return not (self.creates or self.assigns or self.drains or self.deletes)
