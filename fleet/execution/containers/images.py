"""Which image a container is made from, by which pull policies, as which user, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleet.execution.containers.patterns import is_allowed, matches
from fleet.execution.refused import misconfigured
from fleet.execution.variables import Variables
from fleet.gitlab.payload import Image, JobPayload
from fleet.settings.docker import DockerTable

DEFAULT_POLICY = "always"
POLICIES = ("always", "if-not-present", "never")


def with_image(payload: JobPayload, docker: DockerTable) -> JobPayload:
    """The payload with the image that its job gets; a job without any is refused."""
    if payload.image.name:
        return payload
    if not docker.image:
        raise misconfigured(
            "the job names no image, and the runner has none: write `image:` in the job, or `image` in [runners.docker]"
        )
    return payload.model_copy(update={"image": payload.image.model_copy(update={"name": docker.image})})


def image_name(image: Image, docker: DockerTable, variables: Variables) -> str:
    """The name of the job's image, variables filled in; refused when the runner does not allow it."""
    name = variables.expand(image.name).strip()
    if not name:
        raise misconfigured(f"the job's image {image.name!r} is empty once its variables are filled in: set them")
    own = (variables.expand(docker.image or ""),)
    if not is_allowed(name, _expanded(docker.allowed_images, variables), own):
        raise _not_allowed("image", name, docker.allowed_images)
    return name


def service_name(name: str, docker: DockerTable, variables: Variables) -> str:
    """The same for a service."""
    name = variables.expand(name).strip()
    if not name:
        raise misconfigured("a service of the job has no image once its variables are filled in: set them")
    own = [variables.expand(each.name) for each in docker.services]
    if not is_allowed(name, _expanded(docker.allowed_services, variables), own):
        raise _not_allowed("service", name, docker.allowed_services)
    return name


def _expanded(patterns: Iterable[str], variables: Variables) -> list[str]:
    return [variables.expand(each) for each in patterns]


def _not_allowed(what: str, name: str, patterns: Sequence[str]) -> Exception:
    listed = ", ".join(patterns[:10])
    return misconfigured(f"the {what} {name!r} is not allowed on this runner: use one that fits {listed}")


def pull_policies(wanted: Sequence[str], docker: DockerTable, what: str) -> list[str]:
    """The policies in the order in which they are tried."""
    configured: tuple[str, ...] = docker.pull_policy or (DEFAULT_POLICY,)
    if not wanted:
        return list(configured)
    unknown = [each for each in wanted if each not in POLICIES]
    if unknown:
        raise misconfigured(f"pull policy {unknown[0]!r} of {what} is not known: use one of {', '.join(POLICIES)}")
    allowed: tuple[str, ...] = docker.allowed_pull_policies or configured
    found = [each for each in wanted if each in allowed]
    if not found:
        raise misconfigured(
            f"the pull policies of {what} ({', '.join(wanted)}) are not allowed on this runner, which allows"
            f" {', '.join(allowed)}: change them, or `allowed_pull_policies` in [runners.docker]"
        )
    return found


def user_of(image: Image, docker: DockerTable, variables: Variables) -> str:
    """The user in the job's container; empty: the image's own."""
    options = image.executor_opts.get("docker")
    asked = options.get("user") if isinstance(options, dict) else None
    user = variables.expand(docker.user or ("" if asked is None else str(asked))).strip()
    allowed = _expanded(docker.allowed_users, variables)
    if allowed and user not in allowed:
        shown = user or "the image's own"
        raise misconfigured(f"user {shown!r} is not allowed on this runner: use one of {', '.join(allowed)}")
    return user


def platform_of(image: Image, variables: Variables) -> str:
    """The platform that the job asks for."""
    options = image.executor_opts.get("docker")
    asked = options.get("platform") if isinstance(options, dict) else None
    return variables.expand(str(asked)).strip() if asked else ""


def is_privileged(name: str, *, wanted: bool, patterns: Sequence[str]) -> bool:
    """Whether a container has all rights."""
    return wanted and (not patterns or matches(name, patterns))
