"""`[runners.autoscaler]` as written: GitLab Runner's words, and ours in `fleet` and `placements` below it.

Rule: the values here are what the file says, with GitLab Runner's defaults. What a pool is in the end, with names
shared, time zones found and policies that can never hold left out, is in `pools`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from typing_extensions import override

from fleet.settings.durations import Duration
from fleet.settings.section import Count, Numbers, OptionalSecret, Section, Text, Texts
from fleet.settings.sizes import DiskRoom, room_of

ALWAYS = "* * * * *"


class PolicyTable(Section):
    """`[[runners.autoscaler.policy]]`: how many free slots to keep, and when; the last one that matches holds."""

    periods: Texts = (ALWAYS,)
    """Five-field cron expressions, read as ranges: the policy holds in each minute that one of them matches."""
    timezone: Text = None
    """IANA name of the zone of `periods`. Not set: this host's zone."""
    idle_count: Count = 0
    """Free job slots (not machines) to keep ready."""
    idle_time: Duration = timedelta(0)
    """How long a machine beyond the idle target may stay free."""
    scale_factor: Annotated[float, Field(ge=0)] = 0.0
    """Free slots to keep as a multiple of the slots in use; 0 switches it off."""
    scale_factor_limit: Count = 0
    """The most free slots that `scale_factor` may ask for; 0 is no limit."""
    preemptive_mode: bool | None = None
    """Ask for jobs only while a ready slot is free. Not set: true when `idle_count` is above 0."""

    @field_validator("periods")
    @classmethod
    def _periods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return value or (ALWAYS,)

    @field_validator("idle_time")
    @classmethod
    def _idle_time(cls, value: timedelta) -> timedelta:
        if value < timedelta(0):
            raise ValueError("must not be below 0")
        return value


class ThrottleTable(Section):
    """`[runners.autoscaler.scale_throttle]`: how fast machines may be made."""

    limit: Count = 0
    """Machines a second; 0 means 100."""
    burst: Count = 0
    """Machines that may be made at once after a pause; 0 means `max_instances`."""


class ConnectorTable(Section):
    """`[runners.autoscaler.connector_config]`: how a machine is reached; beats what the plugin says."""

    os: Text = None
    """Operating system of the machines: `linux`, or `darwin` for macOS."""
    arch: Text = None
    """Processor of the machines."""
    protocol: Text = None
    """`ssh`, the only one that is supported. Not set: `ssh`."""
    protocol_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """SSH port; 0 means what the plugin says, else 22."""
    username: Text = None
    """User to log in as. Not set: what the plugin says."""
    password: OptionalSecret = None
    """Password of that user; a key is better."""
    key_path: Text = None
    """File with the private key on this host. Not set: a key made for the pool, or what the plugin says."""
    use_static_credentials: bool = False
    """Use `key_path` or `password` and let the provider put no key of ours on the machine."""
    keepalive: Duration = timedelta(seconds=30)
    """How often a quiet connection is probed; 0 means 30s."""
    timeout: Duration = timedelta(seconds=10)
    """How long connecting may take; 0 means 10s."""
    use_external_addr: bool = False
    """Connect to the machine's outside address."""

    @field_validator("keepalive", "timeout")
    @classmethod
    def _defaults(cls, value: timedelta, info: ValidationInfo) -> Any:
        return cls.default_unless_positive(value, info)


class StateStorageTable(Section):
    """`[runners.autoscaler.state_storage]`: accepted and not needed, because all state is in `[fleet] database`."""

    enabled: bool = False
    """Has no effect: state is always kept."""
    dir: Text = None
    """Has no effect: see `[fleet] database`."""
    keep_instance_with_acquisitions: bool = False
    """Has no effect: machines with running jobs are always kept."""


class PoolTable(Section):
    """`[runners.autoscaler.fleet]`: our own keys of a pool. GitLab Runner has no such table."""

    pool: Text = None
    """The pool's name. A second runner shares a pool by naming it and nothing else. Not set: the runner's identity."""
    renamed_from: Text = None
    """Former name of this pool: its machines are kept."""
    max_age: Duration | None = None
    """Machines older than this are drained and replaced. Not set: no limit."""
    trust_on_first_use: bool = False
    """Accept the host key that a machine shows at first contact when nothing tells it beforehand."""
    known_hosts_file: Text = None
    """File in OpenSSH's `known_hosts` form with the host keys of these machines."""
    jump_hosts: Texts = ()
    """Hosts to go through, first to last, as `user@host:port`."""
    agent_python: str = "python3"
    """Python interpreter (3.8 or newer) that runs the agent on the machines."""
    sudo: bool = True
    """Let the agent become root with `sudo -n` where the login user is another."""
    agent_timeout: Duration | None = None
    """As in `[fleet]`, for this pool."""
    unreachable_timeout: Duration | None = None
    """As in `[fleet]`, for this pool."""
    creating_timeout: Duration = timedelta(minutes=10)
    """How long the provider may take until a machine is in its listing and runs."""
    booting_timeout: Duration = timedelta(minutes=10)
    """How long a machine may take from running to its first SSH answer."""
    preparing_timeout: Duration = timedelta(minutes=5)
    """How long the agent's installation and `instance_ready_command` may take."""
    cleaning_timeout: Duration = timedelta(minutes=10)
    """A machine that cannot be cleaned after a job for so long is lost; a given one gets no further job."""
    deleting_timeout: Duration = timedelta(minutes=15)
    """How long a deletion may take; after it the job of a lost machine is told to GitLab all the same."""
    disk_low_watermark: DiskRoom = "10%"
    """With less free room on a disk that jobs fill, what jobs used least lately is removed from it: project
    directories, local caches, cache volumes, images. `0` switches it off. A share ("10%") or a size ("20 GiB")."""
    disk_high_watermark: Annotated[DiskRoom, Field(validate_default=True)] = "20%"
    """How much free room that makes, as far as there is something to remove."""
    disk_reserve: DiskRoom = "256 MiB"
    """With less free room a machine gets no further job until there is more. `0` switches it off."""
    prune_images: bool | None = None
    """Remove images, too; only those that jobs of the pool used on that machine. Not set: on machines that a provider
    makes, not on given hosts."""

    @field_validator(
        "max_age",
        "agent_timeout",
        "unreachable_timeout",
        "creating_timeout",
        "booting_timeout",
        "preparing_timeout",
        "cleaning_timeout",
        "deleting_timeout",
    )
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        return cls.refuse_unless_positive(value)

    @field_validator("disk_high_watermark")
    @classmethod
    def _above_low(cls, value: str, info: ValidationInfo) -> str:
        low, high = room_of(str(info.data.get("disk_low_watermark", "0"))), room_of(value)
        if (high.percent < low.percent and high.percent) or (high.bytes < low.bytes and high.bytes):
            raise ValueError("is below disk_low_watermark: nothing would ever be removed")
        return value


class PlacementTable(Section):
    """`[[runners.autoscaler.placements]]`: where and what to create, in order; further keys go to the plugin."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1)]
    """Unique in the pool."""
    max_instances: Count = 0
    """The most machines in this placement; 0 is no limit."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """For reports and plugins; the order of the list decides where machines are made."""
    price_usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What one machine costs, for reports."""
    spot: bool = False
    """Ask for a spot (preemptible) machine."""

    @override
    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Without the plugin's keys, which may be secrets."""
        return [(name, getattr(self, name)) for name in type(self).model_fields]

    def as_written(self) -> dict[str, Any]:
        """The table for the plugin: its name, whether it is spot, and every further key."""
        return {"name": self.name, **({"spot": True} if self.spot else {}), **(self.__pydantic_extra__ or {})}


class AutoscalerTable(Section):
    """`[runners.autoscaler]`: the pool of machines of a runner."""

    plugin: Text = None
    """Which provider makes the machines: `aws`, `gcp`, `azure`, `libvirt`, `local`, `static`, or another plugin."""
    plugin_config: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Goes to the plugin as it is; see the plugin's page. With `plugin = "static"`: `hosts`, a list of tables with
    `address`, and `name`, `port`, `user`, `host_key` where they differ."""
    capacity_per_instance: int = 1
    """Jobs that one machine runs at once; 0 means 1."""
    max_use_count: Count = 0
    """Jobs that one machine runs in its life; 0 is no limit."""
    max_instances: Count = 0
    """Machines in every state until they are gone; 0 is no limit."""
    instance_ready_command: Text = None
    """Command that must succeed on a machine before it gets jobs."""
    instance_acquire_timeout: Duration = timedelta(minutes=15)
    """How long a job may wait for a machine; 0 means 15m."""
    update_interval: Duration = timedelta(minutes=1)
    """How often the provider is asked for its machines; 0 means 1m."""
    update_interval_when_expecting: Duration = timedelta(seconds=2)
    """The same while a machine is being made or deleted; 0 means 2s."""
    deletion_retry_interval: Duration = timedelta(minutes=1)
    """How often a failed deletion is asked for again; 0 means 1m."""
    shutdown_deletion_interval: Duration = timedelta(seconds=10)
    """How often deletions are checked while stopping; 0 means 10s."""
    shutdown_deletion_retries: int = 3
    """How often deletions are tried while stopping; 0 or less means 3."""
    delete_instances_on_shutdown: bool = False
    """Delete all machines when the manager stops after draining."""
    failure_threshold: int = 3
    """Failed checks in a row after which a machine is replaced; 0 or less means 3."""
    reservation_throttling: bool = True
    """Accepted; polls in the air never count as demand here."""
    log_internal_ip: bool = False
    """Write the machine's inside address into the job's log."""
    log_external_ip: bool = False
    """Write the machine's outside address into the job's log."""
    instance_operation_time_buckets: Numbers = ()
    """Histogram borders in seconds for the next four, where they have none of their own."""
    instance_creation_time_buckets: Numbers = ()
    """Histogram borders in seconds."""
    instance_is_running_time_buckets: Numbers = ()
    """Histogram borders in seconds."""
    instance_deletion_time_buckets: Numbers = ()
    """Histogram borders in seconds."""
    instance_readiness_time_buckets: Numbers = ()
    """Histogram borders in seconds."""
    instance_life_duration_buckets: Numbers = ()
    """Histogram borders in seconds."""
    scale_throttle: ThrottleTable = Field(default_factory=ThrottleTable)
    """How fast machines may be made."""
    connector_config: ConnectorTable = Field(default_factory=ConnectorTable)
    """How a machine is reached."""
    policy: Annotated[tuple[PolicyTable, ...], Field(strict=False)] = ()
    """How many free slots to keep, and when."""
    state_storage: StateStorageTable = Field(default_factory=StateStorageTable)
    """Not needed."""
    fleet: PoolTable = Field(default_factory=PoolTable)
    """Our own keys of a pool."""
    placements: Annotated[tuple[PlacementTable, ...], Field(strict=False)] = ()
    """Where and what to create."""

    @field_validator(
        "capacity_per_instance",
        "instance_acquire_timeout",
        "update_interval",
        "update_interval_when_expecting",
        "deletion_retry_interval",
        "shutdown_deletion_interval",
        "shutdown_deletion_retries",
        "failure_threshold",
    )
    @classmethod
    def _defaults(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.default_unless_positive(value, info)
