"""What the manager needs on its own host: the file, the key, the database, room, addresses. One finding for each.

Rule: a check changes nothing and never raises; what it finds wrong says what to do next.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fleet.cli.database import revision_of, sqlite_file
from fleet.gitlab.identity import FILE_NAME
from fleet.sdk import FleetError
from fleet.settings.problems import Severity
from fleet.settings.settings import Loaded, Settings
from fleet.store.seal import Seal, key_from_file


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        about: what was checked.
        message: what was found, and what to do when it is not ok.
    """

    about: str
    verdict: Verdict
    message: str


def ok(about: str, message: str) -> Finding:
    """All is well."""
    return Finding(about=about, verdict=Verdict.OK, message=message)


def warn(about: str, message: str) -> Finding:
    """It works, but not all of it."""
    return Finding(about=about, verdict=Verdict.WARN, message=message)


def fail(about: str, message: str) -> Finding:
    """It does not work."""
    return Finding(about=about, verdict=Verdict.FAIL, message=message)


def of_file(loaded: Loaded) -> Iterator[Finding]:
    """The configuration file."""
    for problem in loaded.problems:
        make = warn if problem.severity is Severity.WARNING else fail
        line = "" if problem.line is None else f" line {problem.line}"
        yield make(f"configuration{line}", f"{problem.key}: {problem.message}" if problem.key else problem.message)
    if not loaded.errors:
        yield ok("configuration", f"{loaded.path} can be used")
    directory = pathlib.Path(loaded.path).parent
    if not (directory / FILE_NAME).exists() and not os.access(directory, os.W_OK):
        yield warn("system id", f"{directory} cannot be written: the id of this manager is made anew at each start")
    elif loaded.settings is not None and not os.access(directory, os.W_OK):
        yield warn("configuration", f"{directory} cannot be written: renewed tokens are kept in the database alone")


def of_key(settings: Settings) -> Iterator[Finding]:
    """The secret key."""
    fleet = settings.fleet
    path = pathlib.Path(fleet.secret_key_file)
    if fleet.secret_key is None and not path.exists() and not fleet.secret_key_named:
        yield ok("secret key", f"{path} is made at the first start")
        return
    try:
        given = fleet.secret_key
        Seal(given.get_secret_value() if given is not None else key_from_file(path, create=False))
    except FleetError as exc:
        yield fail("secret key", str(exc))
    else:
        yield ok("secret key", "$FLEET_SECRET_KEY" if fleet.secret_key is not None else str(path))


def of_database(settings: Settings) -> Iterator[Finding]:
    """The database, and whether our key opens it."""
    file = sqlite_file(settings)
    if file is not None and not file.exists():
        yield ok("database", f"{file} is made at the first start")
        return
    try:
        at, needed = revision_of(settings)
    except FleetError as exc:
        yield fail("database", str(exc))
        return
    if at != needed:
        yield warn(
            "database", f"it is at revision {at or 'none'}: the next start, or fleetctl db upgrade, brings {needed}"
        )
    else:
        yield ok("database", f"it answers and is at revision {at}")


def of_disks(settings: Settings) -> Iterator[Finding]:
    """Room for the state and for traces."""
    fleet = settings.fleet
    for name, directory in {"state_dir": fleet.state_dir, "spool_dir": fleet.spool_dir}.items():
        there = _nearest(pathlib.Path(directory))
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK | os.X_OK):
            yield fail(name, f"{there} cannot be written by this user: give it to the user that runs fleetctl up")
        elif free < fleet.reserve_free_bytes:
            yield fail(
                name,
                f"{free >> 20} MiB are free in {there}, less than [fleet] reserve_free_bytes "
                f"({fleet.reserve_free_bytes >> 20} MiB): no jobs are taken until there is room",
            )
        else:
            yield ok(name, f"{directory}, {free >> 20} MiB free")


def _nearest(path: pathlib.Path) -> pathlib.Path:
    return next(each for each in (path, *path.parents) if each.exists())


def of_addresses(settings: Settings, *, manager_runs: bool) -> Iterator[Finding]:
    """The addresses to listen on; with a manager running they are taken, and rightly so."""
    addresses = {"[fleet] api_listen": settings.fleet.api_listen}
    if settings.global_.listen_address:
        addresses["listen_address"] = settings.global_.listen_address
    for key, address in addresses.items():
        if manager_runs:
            yield ok(key, f"{address}: a manager of this configuration runs")
            continue
        problem = _cannot_listen(address)
        if problem is None:
            yield ok(key, address)
        else:
            yield fail(key, f"{address} cannot be listened on ({problem}): choose another port")
    if not settings.global_.listen_address:
        yield ok("listen_address", f"not set: /metrics and /health are on {settings.fleet.api_listen} alone")


def _cannot_listen(address: str) -> str | None:
    parts = urllib.parse.urlsplit(f"//{address}")
    host = parts.hostname or ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, parts.port or 0))
        except OSError as exc:
            return exc.strerror or str(exc)
    return None
