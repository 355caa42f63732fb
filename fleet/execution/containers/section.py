"""The part `containers` of a job file (docs/reference/agent-frames.md), put together.

Rule: jobs with services get a bridge network of their own, because on the engine's default bridge containers do not
find each other by name; so do all jobs under FF_NETWORK_PER_BUILD. A `network_mode` of the runner is used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.execution.containers import images, options, registries, services, volumes
from fleet.execution.containers.names import Names, label, labels_of, names_of
from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.layout import Layout
from fleet.execution.timeouts import attempts, within_job
from fleet.execution.variables import Variable, Variables
from fleet.gitlab.payload import JobPayload
from fleet.settings.docker import DockerTable

HELPER = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"
HELPER_ARCHES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64", "armv7l": "arm"}
OPEN_DIRECTORY_MODE, OPEN_FILE_MODE = 0o777, 0o666
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
DETECTOR = (
    "for shell in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh /busybox/sh;"
    ' do if [ -x "$shell" ]; then exec "$shell"; fi; done; exec sh'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The part of the job file, the modes of the job's own files, and warnings."""

    containers: dict[str, Any] = field(repr=False)
    directory_mode: int
    file_mode: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionInputs:
    """What it is made from."""

    payload: JobPayload
    runner: RunnerFacts
    machine: MachineFacts
    lease: LeaseFacts
    variables: Variables
    expanded: tuple[Variable, ...]
    flags: Mapping[str, bool]
    layout: Layout
    keeps_builds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What all containers of a job have in common."""

    docker: DockerTable
    names: Names
    logins: tuple[tuple[registries.Login, ...], ...] = field(repr=False)
    network: str


def section_of(given: SectionInputs) -> Section:
    """Everything; raises `JobRefused` for what the runner does not allow."""
    assert given.runner.docker is not None
    docker, profiles = options.with_profiles(given.runner.docker, given.runner.seccomp_profiles)
    names = names_of(given.payload, given.runner, given.lease)
    warnings: list[str] = []
    logins = _logins(given, warnings)
    network = _network(given, docker, names)
    made = services.services_of(
        services.ServiceInputs(
            payload=given.payload,
            docker=docker,
            variables=given.variables,
            names=names,
            logins=logins,
            network=network,
            open_variables=_open_variables(given),
        )
    )
    storage = _storage(given, docker, names)
    about = _About(docker=docker, names=names, logins=logins, network=network)
    hands_over = given.flags["FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR"]
    wants_logs = given.variables.is_on("CI_DEBUG_SERVICES", default=False)
    if wants_logs and given.runner.debug_trace_disabled:
        warnings.append("CI_DEBUG_SERVICES is set, and this runner does not allow debug traces: it has no effect")
    containers = {
        "program": docker.program,
        "host": docker.host,
        "labels": {
            **{name: given.variables.expand(text) for name, text in docker.container_labels.items()},
            **labels_of(given.payload, given.runner, given.lease),
        },
        "prepare_timeout_s": within_job(given.runner.prepare_timeout_s, given.payload.runner_info.timeout_s),
        "network": {"name": network, "options": options.network_options(docker)} if network == names.network else None,
        "volumes": storage.volumes,
        "mounts": storage.mounts,
        "places": storage.places,
        "image": _image(given, about, made.links, warnings),
        "helper": _helper(given, about),
        "services": made.services,
        "profiles": profiles,
        "wait_for_services_s": docker.wait_for_services_timeout,
        "service_logs": wants_logs and not given.runner.debug_trace_disabled,
        "attempts": attempts(given.variables.get("EXECUTOR_JOB_SECTION_ATTEMPTS")),
        "native_stop": given.flags["FF_USE_NATIVE_CONTAINER_STOP"],
        "chown": hands_over,
        "owned": [given.layout.project, given.layout.tmp],
        "environment": _environment(given),
    }
    return Section(
        containers=containers,
        directory_mode=DIRECTORY_MODE if hands_over else OPEN_DIRECTORY_MODE,
        file_mode=FILE_MODE if hands_over else OPEN_FILE_MODE,
        warnings=(*warnings, *made.warnings, *storage.warnings),
    )


def has_own_network(payload: JobPayload, docker: DockerTable, flags: Mapping[str, bool]) -> bool:
    """Whether the job gets a network of its own."""
    has_services = bool(docker.services or payload.services)
    return not docker.network_mode and (has_services or flags["FF_NETWORK_PER_BUILD"])


def _network(given: SectionInputs, docker: DockerTable, names: Names) -> str:
    if has_own_network(given.payload, docker, given.flags):
        return names.network
    return docker.network_mode or ""


def _storage(given: SectionInputs, docker: DockerTable, names: Names) -> volumes.Storage:
    return volumes.storage_of(
        docker=docker,
        written=[given.variables.expand(text) for text in docker.volumes],
        names=names,
        builds=given.layout.builds,
        cache=given.runner.cache_dir or "/cache",
        project=given.layout.project,
        keeps=given.keeps_builds,
    )


def _logins(given: SectionInputs, warnings: list[str]) -> tuple[tuple[registries.Login, ...], ...]:
    text = next((each.value for each in reversed(given.expanded) if each.key == "DOCKER_AUTH_CONFIG"), "")
    said, warning = registries.logins_of_variable(text)
    if warning:
        warnings.append(warning)
    return said, given.runner.registry_logins, registries.logins_of_payload(given.payload.credentials)


def _image(given: SectionInputs, about: _About, links: list[str], warnings: list[str]) -> dict[str, Any]:
    image, variables, docker = given.payload.image, given.variables, about.docker
    name = images.image_name(image, docker, variables)
    user = images.user_of(image, docker, variables)
    is_privileged = images.is_privileged(name, wanted=docker.privileged, patterns=docker.allowed_privileged_images)
    entrypoint = list(image.entrypoint) if image.entrypoint else None
    if entrypoint and docker.disable_entrypoint_overwrite:
        warnings.append("the job's entrypoint is ignored: this runner does not allow others than the image's own")
        entrypoint = None
    words = options.build_options(docker, user=user, privileged=is_privileged)
    words += ["--network", about.network] if about.network else []
    words += [word for link in links for word in ("--link", link)]
    return {
        "name": name,
        "image": name,
        "container": about.names.container("build"),
        "pull": images.pull_policies(image.pull_policy, docker, f"image {name}"),
        "platform": images.platform_of(image, variables),
        "auth": registries.auth_of(name, about.logins),
        "entrypoint": entrypoint,
        "command": ["sh", "-c", DETECTOR],
        "user": user,
        "options": words,
        "labels": label("type", "build"),
    }


def _helper(given: SectionInputs, about: _About) -> dict[str, Any]:
    docker, network = about.docker, about.network
    name = given.variables.expand(docker.helper_image or "").strip() or _default_helper(docker, given.machine)
    return {
        "image": name,
        "container": about.names.container("predefined"),
        "pull": images.pull_policies((), docker, f"image {name}"),
        "auth": registries.auth_of(name, about.logins),
        "options": [*options.helper_options(docker), *(["--network", network] if network else [])],
        "labels": label("type", "predefined"),
    }


def _default_helper(docker: DockerTable, machine: MachineFacts) -> str:
    arch = HELPER_ARCHES.get(machine.arch, machine.arch or "x86_64")
    flavor = docker.helper_image_flavor
    return f"{HELPER}:{flavor + '-' if flavor and flavor != 'alpine' else ''}{arch}-latest"


def _environment(given: SectionInputs) -> dict[str, str]:
    """The job's variables, for the image's entry point; the scripts set them once more.

    Helper stages are root's, so git in the image is told that it may trust what they brought, whoever runs it.
    """
    trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    own = {each.key: given.variables.path_of(each.key) if each.file else each.value for each in given.expanded}
    return (trust if given.runner.safe_directory_checkout else {}) | own


def _open_variables(given: SectionInputs) -> dict[str, str]:
    """What services may see: nothing that a person has not made public."""
    found = {}
    for each in given.expanded:
        if each.public and not each.masked:
            found[each.key] = given.variables.path_of(each.key) if each.file else each.value
    return found
