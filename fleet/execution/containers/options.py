"""The settings of `[runners.docker]` as options of the engine's program, for the build container and for services.

Rule: what is not set gives no option, so the engine's own defaults hold. The file of a seccomp profile was read on the
manager already (`security_opt` here holds its text).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fleet.execution.containers.patterns import matches
from fleet.settings.docker import DockerTable

BRIDGES = frozenset(("bridge", "default"))
SECCOMP = "seccomp="
SPECIAL_NETWORKS = frozenset(("host", "none"))


def with_profiles(docker: DockerTable, profiles: Mapping[str, str]) -> tuple[DockerTable, list[str]]:
    """The settings with `{profile:N}` for each seccomp file that was read on this host, and the texts of these."""
    texts: list[str] = []

    def marked(option: str) -> str:
        path = option.removeprefix(SECCOMP)
        if path == option or path not in profiles:
            return option
        texts.append(profiles[path])
        return f"{SECCOMP}{{profile:{len(texts) - 1}}}"

    changes = {
        "security_opt": tuple(marked(each) for each in docker.security_opt),
        "services_security_opt": tuple(marked(each) for each in docker.services_security_opt),
    }
    return (docker.model_copy(update=changes), texts) if profiles else (docker, texts)


def build_options(docker: DockerTable, *, user: str, privileged: bool) -> list[str]:
    """For the container of the job's image."""
    return [
        *_shared(docker),
        *_one("--hostname", docker.hostname),
        *_one("--mac-address", docker.mac_address),
        *_one("--user", user),
        *_each("--group-add", docker.group_add),
        *_one("--pid", docker.pid_mode),
        *_one("--ipc", docker.ipcmode),
        *(["--privileged"] if privileged else ()),
        *_each("--cap-add", docker.cap_add),
        *_each("--cap-drop", docker.cap_drop),
        *_each("--security-opt", docker.security_opt),
        *_pairs("--sysctl", docker.sysctls),
        *_pairs("--ulimit", docker.ulimit),
        *_places("--tmpfs", docker.tmpfs),
        *_each("--device", docker.devices),
        *_each("--device-cgroup-rule", docker.device_cgroup_rules),
        *_one("--gpus", docker.gpus),
        *_each("--volumes-from", docker.volumes_from),
        *_each("--link", docker.links),
        *_memory(docker.memory, docker.memory_swap, docker.memory_reservation),
        *_one("--cpus", docker.cpus),
        *_one("--cpu-shares", docker.cpu_shares or None),
        *_one("--cpuset-cpus", docker.cpuset_cpus),
        *_one("--cpuset-mems", docker.cpuset_mems),
        *_one("--cgroup-parent", docker.cgroup_parent),
        *(["--oom-kill-disable"] if docker.oom_kill_disable else ()),
        *_one("--oom-score-adj", docker.oom_score_adjust or None),
    ]


def service_options(docker: DockerTable, image: str, *, privileged: bool) -> list[str]:
    """For the container of a service."""
    devices = [
        device for pattern, each in docker.services_devices.items() if matches(image, (pattern,)) for device in each
    ]
    return [
        *_shared(docker),
        *(["--privileged"] if privileged else ()),
        *_each("--security-opt", docker.services_security_opt),
        *_pairs("--sysctl", docker.sysctls),
        *_places("--tmpfs", docker.services_tmpfs),
        *_each("--device", devices),
        *_one("--gpus", docker.service_gpus),
        *_memory(docker.service_memory, docker.service_memory_swap, docker.service_memory_reservation),
        *_one("--cpus", docker.service_cpus),
        *_one("--cpu-shares", docker.service_cpu_shares or None),
        *_one("--cpuset-cpus", docker.service_cpuset_cpus),
        *_one("--cgroup-parent", docker.service_cgroup_parent),
    ]


def helper_options(docker: DockerTable) -> list[str]:
    """For the container of helper stages: the build container's limits."""
    return [
        *_shared(docker),
        *_memory(docker.memory, docker.memory_swap, docker.memory_reservation),
        *_one("--cpus", docker.cpus),
        *_one("--cgroup-parent", docker.cgroup_parent),
    ]


def network_options(docker: DockerTable) -> list[str]:
    """For making the job's own network."""
    return [
        "--driver",
        "bridge",
        *(["--ipv6"] if docker.enable_ipv6 else ()),
        *(["--opt", f"com.docker.network.driver.mtu={docker.network_mtu}"] if docker.network_mtu > 0 else ()),
    ]


def has_names(network: str) -> bool:
    """Whether containers in a network find each other by names that they are given."""
    return network not in BRIDGES and network not in SPECIAL_NETWORKS and not network.startswith("container:")


def _shared(docker: DockerTable) -> list[str]:
    return [
        *_one("--userns", docker.userns_mode),
        *_one("--runtime", docker.runtime),
        *_each("--dns", docker.dns),
        *_each("--dns-search", docker.dns_search),
        *_each("--add-host", docker.extra_hosts),
        *_one("--shm-size", docker.shm_size or None),
        *_pairs("--log-opt", docker.log_options),
    ]


def _one(option: str, value: object) -> list[str]:
    return [] if value is None or value == "" else [option, str(value)]


def _each(option: str, values: Iterable[str]) -> Iterator[str]:
    return (word for value in values for word in (option, value))


def _pairs(option: str, values: Mapping[str, str]) -> Iterator[str]:
    return (word for name, value in values.items() for word in (option, f"{name}={value}"))


def _places(option: str, values: Mapping[str, str]) -> Iterator[str]:
    return (word for path, how in values.items() for word in (option, f"{path}:{how}" if how else path))


def _memory(limit: str | None, swap: str | None, reservation: str | None) -> list[str]:
    return [*_one("--memory", limit), *_one("--memory-swap", swap), *_one("--memory-reservation", reservation)]
