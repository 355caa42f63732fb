"""The registry logins of the manager's own user: `~/.docker/config.json`, with the credential helpers it names.

Rule: it is read anew at most every minute and when the file has changed; a helper that fails or hangs costs its own
logins and a warning, never a job.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from fleet.execution.containers.registries import Login, logins_in, place_of

log = structlog.get_logger(__name__)
FRESH_S = 60.0
HELPER_S = 10.0
NAME = re.compile(r"[A-Za-z0-9._-]+")
TOKEN_USER = "<token>"  # noqa: S105  how a helper says that its secret is an identity token

_lock = threading.Lock()
_kept: dict[str, tuple[float, int, tuple[Login, ...]]] = {}


def registry_logins() -> tuple[Login, ...]:
    """The logins of now."""
    path = _path()
    with _lock:
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return ()
        kept = _kept.get(str(path))
        if kept is not None and kept[1] == changed and time.monotonic() - kept[0] < FRESH_S:
            return kept[2]
        found = _read(path)
        _kept[str(path)] = (time.monotonic(), changed, found)
        return found


def _path() -> pathlib.Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (pathlib.Path(folder) if folder else pathlib.Path.home() / ".docker") / "config.json"


def _read(path: pathlib.Path) -> tuple[Login, ...]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        log.warning("registry_logins_unreadable", path=str(path), error=type(exc).__name__)
        return ()
    if not isinstance(config, dict):
        return ()
    source = str(path)
    found = {each.place: each for each in logins_in(config, source)}
    store = config.get("credsStore")
    if store:
        for address in _ask(str(store), "list", "") or {}:
            _take(found, str(store), str(address), source)
    helpers = config.get("credHelpers")
    for address, helper in helpers.items() if isinstance(helpers, Mapping) else ():
        _take(found, str(helper), str(address), source)
    return tuple(found.values())


def _take(found: dict[str, Login], helper: str, address: str, source: str) -> None:
    told = _ask(helper, "get", address)
    if not told or not told.get("Secret"):
        return
    is_token = told.get("Username") == TOKEN_USER
    login = Login(
        place=place_of(address),
        username="" if is_token else str(told.get("Username", "")),
        password="" if is_token else str(told["Secret"]),
        identity_token=str(told["Secret"]) if is_token else "",
        source=f"{source} ({helper})",
    )
    found[login.place] = login


def _ask(helper: str, verb: str, address: str) -> Mapping[str, Any] | None:
    if not NAME.fullmatch(helper):
        log.warning("credential_helper_failed", helper=helper, error="its name is not that of a program")
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", verb],
            input=address.encode(),
            capture_output=True,
            timeout=HELPER_S,
            check=True,
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as exc:  # its output may hold a secret
        log.warning("credential_helper_failed", helper=helper, error=type(exc).__name__)
        return None
    return told if isinstance(told, dict) else None
