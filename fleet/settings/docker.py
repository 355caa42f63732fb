"""`[runners.docker]`: jobs in containers, with GitLab Runner's words and defaults.

Rule: every key of GitLab Runner is here or, where no machine of ours has a use for it, in `upstream` with the reason.
What a key becomes is decided in `execution.containers`; here only what no engine would take is refused.
"""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, field_validator

from fleet.settings.docker_images import ImageKeys, PullPolicies, ServiceTable
from fleet.settings.docker_limits import ResourceKeys, RightKeys, TextTable, size_bytes
from fleet.settings.section import Text, Texts

__all__ = ["DockerTable", "PullPolicies", "ServiceTable", "size_bytes"]


class DockerTable(ImageKeys, ResourceKeys, RightKeys):
    """`[runners.docker]`: keys of the executors that run jobs in containers."""

    program: Literal["docker", "podman"] = "docker"
    """The engine's program on the machine. Ours; GitLab Runner speaks to Docker alone."""
    host: Text = None
    """The engine's address on the machine, such as `unix:///run/user/1000/docker.sock`. Not set: the program's own."""
    hostname: Text = None
    """Host name in the job's container."""
    mac_address: Text = None
    """MAC address of the job's container."""
    volumes: Texts = ("/cache",)
    """Volumes of the containers: `/cache` is kept between jobs, `/srv/x:/x:ro` is a directory of the machine."""
    volumes_from: Texts = ()
    """Containers whose volumes the job's container gets, too."""
    disable_cache: bool = False
    """Keep no volume between jobs."""
    cache_dir: Text = None
    """Directory on the machine that holds the kept volumes. Not set: the engine's own volumes."""
    volume_driver: Text = None
    """The engine's driver for volumes."""
    volume_driver_ops: TextTable = Field(default_factory=dict)
    """Options of that driver."""
    volume_keep: bool = False
    """Keep the volumes that would end with the job."""
    tmpfs: TextTable = Field(default_factory=dict)
    """Directories of the job's container in memory, with their options, such as `"/tmp" = "rw,noexec"`."""
    services_tmpfs: TextTable = Field(default_factory=dict)
    """The same for services."""
    network_mode: Text = None
    """Network of all containers: `bridge`, `host`, `none` or a name. Not set: the engine's own, or one of the job's
    own when it has services."""
    network_mtu: int = 0
    """Largest packet of the job's own network, in bytes; 0 is the engine's own."""
    enable_ipv6: bool = False
    """Let the job's own network have IPv6."""
    dns: Texts = ()
    """Name servers of the containers."""
    dns_search: Texts = ()
    """Search domains of the containers."""
    extra_hosts: Texts = ()
    """Further host names of the containers, each as `name:address`."""
    links: Texts = ()
    """Containers on the machine that the job reaches by a name, each as `container:name`."""
    container_labels: TextTable = Field(default_factory=dict)
    """Labels of the containers; variables are filled in."""
    log_options: TextTable = Field(default_factory=dict)
    """Options of the engine's log driver."""

    @field_validator("wait_for_services_timeout")
    @classmethod
    def _wait(cls, value: int) -> int:
        return 30 if value == 0 else value

    @field_validator("extra_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if ":" not in each:
                raise ValueError(f"{each!r} is not a host: write it as name:address")
        return value

    @field_validator("cache_dir")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not os.path.isabs(value):
            raise ValueError(f"{value!r} is a directory on the machine: write its whole path")
        return value
