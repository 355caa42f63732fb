"""Keys of `[runners.docker]` about what containers may use and do: resources, rights, devices.

Rule: sizes are texts as Docker writes them, such as `512m`; they are checked here, because a size that Docker refuses
would fail every job.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from fleet.settings.section import Section, Text, Texts

SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])i?b?|b)?", re.IGNORECASE)
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
SMALLEST_MEMORY_BYTES = 4 << 20
CPUS = re.compile(r"\d+(\.\d+)?")


def size_bytes(text: str) -> int:
    """The size in bytes; -1 stands for no limit."""
    if text == "-1":
        return -1
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is not a size: write it as "512m" or "2g"')
    return int(float(found[1]) * UNITS[(found[2] or "").lower()])


def _size(text: str | None) -> str | None:
    if text is not None:
        size_bytes(text)
    return text


def _memory(text: str | None) -> str | None:
    if text is not None and 0 < size_bytes(text) < SMALLEST_MEMORY_BYTES:
        raise ValueError(f"{text!r} is less than the 4m that the engine allows")
    return text


def _cpus(text: str | None) -> str | None:
    if text is not None and not CPUS.fullmatch(text):
        raise ValueError(f'{text!r} is not a number of processors: write it as "2" or "1.5"')
    return text


Size = Annotated[Text, AfterValidator(_size)]
Memory = Annotated[Text, AfterValidator(_memory)]
Cpus = Annotated[Text, AfterValidator(_cpus)]
TextTable = dict[str, str]


class ResourceKeys(Section):
    """What the containers of a job may use."""

    memory: Memory = None
    """Memory of the job's container, at least `4m`."""
    memory_swap: Size = None
    """Memory and swap together; `-1` is no limit."""
    memory_reservation: Size = None
    """Memory that the container is pressed down to when the machine is short of it."""
    cpus: Cpus = None
    """Processors of the job's container, such as `"1.5"`."""
    cpu_shares: int = 0
    """Relative weight of its processor time; 0 is the engine's own 1024."""
    cpuset_cpus: Text = None
    """Processors that it runs on, such as `"0,1"`."""
    cpuset_mems: Text = None
    """Memory nodes that it uses, such as `"0"`."""
    cgroup_parent: Text = None
    """Control group above the job's container."""
    oom_kill_disable: bool = False
    """Do not end the container when it is out of memory."""
    oom_score_adjust: int = 0
    """How soon the system ends it when memory is short: the higher, the sooner; -1000 to 1000."""
    shm_size: int = 0
    """Size of `/dev/shm` in bytes; 0 is the engine's own 64 MiB."""
    service_memory: Memory = None
    """Memory of each service."""
    service_memory_swap: Size = None
    """Memory and swap of each service together."""
    service_memory_reservation: Size = None
    """As `memory_reservation`, for each service."""
    service_cpus: Cpus = None
    """Processors of each service."""
    service_cpu_shares: int = 0
    """As `cpu_shares`, for each service."""
    service_cpuset_cpus: Text = None
    """As `cpuset_cpus`, for each service."""
    service_cgroup_parent: Text = None
    """Control group above each service."""


class RightKeys(Section):
    """What the containers of a job may do."""

    privileged: bool = False
    """Give the job's container all rights over the machine; needed for Docker in Docker."""
    services_privileged: bool | None = None
    """The same for services. Not set: as `privileged`."""
    cap_add: Texts = ()
    """Capabilities to add, such as `NET_ADMIN`."""
    cap_drop: Texts = ()
    """Capabilities to take away."""
    security_opt: Texts = ()
    """Security options, such as `no-new-privileges`; the file of `seccomp=FILE` is read on this host."""
    services_security_opt: Texts = ()
    """Security options of services."""
    user: Text = None
    """User in the job's container; a job's own wish counts only when this is not set."""
    allowed_users: Texts = ()
    """Users that a job's image may be run as; an empty text in it is the image's own user. Not set: every user, or
    `user` alone."""
    group_add: Texts = ()
    """Further groups of the user."""
    userns_mode: Text = None
    """User namespace of the containers, such as `host`."""
    pid_mode: Text = None
    """Process namespace of the job's container, such as `host`."""
    ipcmode: Text = None
    """Memory namespace of the job's container, such as `host`."""
    runtime: Text = None
    """The engine's runtime, such as `runsc`."""
    sysctls: TextTable = Field(default_factory=dict)
    """Kernel settings of the containers."""
    ulimit: TextTable = Field(default_factory=dict)
    """Limits of the job's container, such as `nofile = "1024:2048"`."""
    devices: Texts = ()
    """Devices for the job's container, such as `/dev/kvm`."""
    device_cgroup_rules: Texts = ()
    """Rules for devices that appear later, such as `c 188:* rmw`."""
    gpus: Text = None
    """Graphics processors for the job's container: `all`, a number, or `device=ID`."""
    service_gpus: Text = None
    """The same for services."""
    services_devices: dict[str, Texts] = Field(default_factory=dict)
    """Devices for services, by patterns of their images."""
