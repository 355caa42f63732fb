"""Keys of `[runners.docker]` about images: which ones jobs may use, and how they are brought to the machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from fleet.settings.section import Section, Text, Texts

PullPolicy = Literal["always", "if-not-present", "never"]


def _listed(value: object) -> object:
    """GitLab Runner takes one policy or a list of them."""
    if isinstance(value, str):
        return (value,) if value else ()
    return value


PullPolicies = Annotated[tuple[PullPolicy, ...], Field(strict=False), BeforeValidator(_listed)]


class ServiceTable(Section):
    """`[[runners.docker.services]]`: a service that every job gets beside it."""

    name: Annotated[str, Field(min_length=1)]
    """Image of the service; variables are filled in."""
    alias: Text = None
    """Further names under which jobs reach it, parted by spaces or commas."""
    entrypoint: Texts = ()
    """Replaces the image's entry point."""
    command: Texts = ()
    """Replaces the image's command."""
    environment: Texts = Field(default=(), repr=False)
    """Variables of the service, each as `NAME=value`."""


class ImageKeys(Section):
    """Images, services and the rules about them."""

    image: Text = None
    """Image of jobs that name none; variables are filled in."""
    pull_policy: PullPolicies = ()
    """`always`, `if-not-present` or `never`, or a list of them that is tried in order. Not set: `always`."""
    allowed_pull_policies: PullPolicies = ()
    """Policies that a job may ask for. Not set: those in `pull_policy`."""
    allowed_images: Texts = ()
    """Patterns of images that jobs may use, with `*`, `**` and `?`. Not set: every image."""
    allowed_services: Texts = ()
    """Patterns of images that jobs may use as services. Not set: every image."""
    allowed_privileged_images: Texts = ()
    """Patterns of images that run privileged when `privileged` is set. Not set: every image."""
    allowed_privileged_services: Texts = ()
    """Patterns of services that run privileged when they are to. Not set: every image."""
    helper_image: Text = None
    """Image of helper stages where the machine cannot run them itself: `sh`, `tar` and git must be in it. Not set:
    GitLab Runner's own."""
    helper_image_flavor: Text = None
    """Flavour of GitLab Runner's helper image, such as `ubuntu`. Not set: the plain one, `alpine`."""
    disable_entrypoint_overwrite: bool = False
    """Ignore the entry points that jobs set for images and services."""
    services: Annotated[tuple[ServiceTable, ...], Field(strict=False)] = ()
    """Services that every job gets."""
    services_limit: int = -1
    """The most services of a job; more fail it. -1: no limit."""
    wait_for_services_timeout: int = 30
    """Seconds to wait for services to answer; 0 means 30, less does not wait."""
