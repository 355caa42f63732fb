"""Services of a job: the runner's first, then the job's own.

Rule: a service is reached by names made from its image (`group/name:1` is `group__name` and `group-name`) and by those
it is given; a name that an earlier service has is left out, with a warning. It sees the variables that are no secret,
and its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.execution.containers import images, options
from fleet.execution.containers.names import Names, label
from fleet.execution.containers.registries import Login, auth_of
from fleet.execution.refused import misconfigured
from fleet.execution.variables import Variables, pairs
from fleet.gitlab.payload import Image, JobPayload, Variable
from fleet.settings.docker import DockerTable

_PORT = re.compile(r"^(?P<host>[^/]*):\d+(?=/)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInputs:
    """What services are made from."""

    payload: JobPayload
    docker: DockerTable
    variables: Variables
    names: Names
    logins: tuple[tuple[Login, ...], ...]
    network: str
    open_variables: Mapping[str, str] = field(repr=False)


@dataclass(slots=True, kw_only=True)
class Made:
    """The services, links for the build container where its network knows no names, and warnings."""

    services: list[dict[str, Any]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def services_of(given: ServiceInputs) -> Made:
    """All services of a job."""
    wanted = [*_configured(given.docker), *given.payload.services]
    limit = given.docker.services_limit
    if 0 <= limit < len(wanted):
        raise misconfigured(f"the job has {len(wanted)} services, and this runner allows {limit}: use fewer")
    made, taken = Made(), set[str]()
    for index, image in enumerate(wanted):
        _add(made, given, image, index, taken)
    return made


def _configured(docker: DockerTable) -> Iterable[Image]:
    for each in docker.services:
        yield Image(
            name=each.name,
            alias=each.alias or "",
            entrypoint=each.entrypoint,
            command=each.command,
            variables=tuple(Variable(key=key, value=value) for key, value in pairs(each.environment)),
        )


def _add(made: Made, given: ServiceInputs, image: Image, index: int, taken: set[str]) -> None:
    docker, variables = given.docker, given.variables
    name = images.service_name(image.name, docker, variables)
    service, version = split_name(name)
    aliases = _aliases(service, replace_alias(image, variables), taken, made)
    container = given.names.container(f"{service.replace('/', '__')}-{index}")
    privileged = docker.privileged if docker.services_privileged is None else docker.services_privileged
    is_privileged = images.is_privileged(name, wanted=privileged, patterns=docker.allowed_privileged_services)
    words = options.service_options(docker, name, privileged=is_privileged)
    words += ["--network", given.network] if given.network else []
    if given.network and options.has_names(given.network):
        words += [word for alias in aliases for word in ("--network-alias", alias)]
    elif given.network not in options.SPECIAL_NETWORKS and not given.network.startswith("container:"):
        made.links += [f"{container}:{alias}" for alias in aliases]
    keeps_entrypoint = docker.disable_entrypoint_overwrite and index >= len(docker.services)
    if keeps_entrypoint and image.entrypoint:
        made.warnings.append(f"the entrypoint of service {name} is ignored: this runner does not allow others")
    made.services.append(
        {
            "name": service,
            "image": name,
            "container": container,
            "pull": images.pull_policies(image.pull_policy, docker, f"service {name}"),
            "platform": images.platform_of(image, variables),
            "auth": auth_of(name, given.logins),
            "entrypoint": list(image.entrypoint) if image.entrypoint and not keeps_entrypoint else None,
            "command": list(image.command),
            "aliases": aliases,
            "environment": _environment(given, image),
            "options": words,
            "ports": [port.number for port in image.ports],
            "labels": {**label("type", "service"), **label("service", service), **label("service.version", version)},
        }
    )


def replace_alias(image: Image, variables: Variables) -> tuple[str, ...]:
    """The names that a service is given, variables filled in."""
    return image.model_copy(update={"alias": variables.expand(image.alias)}).aliases


def _aliases(service: str, given: Iterable[str], taken: set[str], made: Made) -> list[str]:
    found = []
    derived = (service.replace("/", "__"), service.replace("/", "-"))
    for alias in dict.fromkeys((*derived, *given)):
        if alias in taken:
            made.warnings.append(
                f"service {service} is not reached by the alias {alias!r}: another service has that name"
            )
            continue
        taken.add(alias)
        found.append(alias)
    return found


def split_name(image: str) -> tuple[str, str]:
    """Name without port and tag, and the tag or digest."""
    bare, _, digest = image.partition("@")
    head, slash, last = bare.rpartition("/")
    name, _, tag = last.partition(":")
    return _PORT.sub(r"\g<host>", f"{head}{slash}{name}"), digest or tag or "latest"


def _environment(given: ServiceInputs, image: Image) -> dict[str, str]:
    own = {}
    for each in image.variables:
        own[each.key] = each.value if each.raw else given.variables.expand(each.value)
    return {**given.open_variables, **own}


def without_services(given: ServiceInputs) -> bool:
    """Whether the job has none at all."""
    return not given.docker.services and not given.payload.services


def in_network(given: ServiceInputs, network: str) -> ServiceInputs:
    """The same in another network."""
    return replace(given, network=network)
