"""Which credentials an image is pulled with.

Rule: DOCKER_AUTH_CONFIG (the job's, else the runner's) comes before the manager user's own logins, and these before the
credentials in the payload; within one source the longest path that fits the image counts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.gitlab.payload import Credentials

HUB = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Credentials for a registry, or a path in it.

    Attributes:
        place: host, port and path, without scheme.
        source: where they come from, for the job's log.
    """

    place: str
    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = ""


def login_for(image: str, sources: Iterable[Iterable[Login]]) -> Login | None:
    """The login for an image: of the first source that has one, the nearest."""
    wanted = _place_of_image(image)
    for logins in sources:
        fitting = [each for each in logins if wanted == each.place or wanted.startswith(each.place + "/")]
        if fitting:
            return max(fitting, key=lambda each: len(each.place))
    return None


def auth_of(image: str, sources: Iterable[Iterable[Login]]) -> dict[str, str] | None:
    """What the agent gets for one pull; None: nothing."""
    login = login_for(image, sources)
    if login is None:
        return None
    host = registry_of(image)
    return {
        "registry": HUB if host in _HUB_HOSTS else host,
        "username": login.username,
        "password": login.password,
        "identity_token": login.identity_token,
        "source": login.source,
    }


def registry_of(image: str) -> str:
    """The registry's host that an image's name means."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"


def _place_of_image(image: str) -> str:
    host = registry_of(image)
    path = image.removeprefix(f"{host}/").partition("@")[0]
    head, _, last = path.rpartition("/")
    bare = f"{head}/{last.partition(':')[0]}".lstrip("/")
    return place_of(f"{host}/{bare}")


def place_of(address: str) -> str:
    """Host and path of a registry's address, one spelling for all of Docker Hub's."""
    bare = address.partition("://")[2] if "://" in address else address
    host, _, path = bare.strip("/").partition("/")
    if host in _HUB_HOSTS:
        host, path = "docker.io", path.removeprefix("v1").removeprefix("v2").strip("/")
    return f"{host}/{path}" if path else host


def logins_in(config: Mapping[str, Any], source: str) -> tuple[Login, ...]:
    """The logins that stand in a `config.json` themselves; those in credential stores are asked for elsewhere."""
    auths = config.get("auths")
    if not isinstance(auths, Mapping):
        return ()
    found = (_login(str(address), entry, source) for address, entry in auths.items() if isinstance(entry, Mapping))
    return tuple(each for each in found if each is not None)


def _login(address: str, entry: Mapping[str, Any], source: str) -> Login | None:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            pair = base64.b64decode(str(entry["auth"]), validate=False).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return None
        username, _, password = pair.partition(":")
    token = str(entry.get("identitytoken") or "")
    if not password and not token:
        return None
    return Login(
        place=place_of(address), username=username, password=password.rstrip("\0"), identity_token=token, source=source
    )


def logins_of_variable(text: str) -> tuple[tuple[Login, ...], str]:
    """The logins in DOCKER_AUTH_CONFIG, and a warning when nobody can read it."""
    if not text.strip():
        return (), ""
    try:
        config = json.loads(text)
    except ValueError:
        return (), "DOCKER_AUTH_CONFIG is not JSON: no credentials are taken from it"
    if not isinstance(config, dict):
        return (), "DOCKER_AUTH_CONFIG is not a JSON object: no credentials are taken from it"
    warning = ""
    if config.get("credsStore") or config.get("credHelpers"):
        warning = "DOCKER_AUTH_CONFIG names credential helpers: only those in the manager user's own file are run"
    return logins_in(config, "$DOCKER_AUTH_CONFIG"), warning


def logins_of_payload(credentials: Iterable[Credentials]) -> tuple[Login, ...]:
    """What GitLab sent: its own registry and dependency proxy."""
    return tuple(
        Login(
            place=place_of(each.url),
            username=each.username,
            password=each.password,
            source="job payload (GitLab Registry)",
        )
        for each in credentials
        if each.type == "registry" and each.url
    )
