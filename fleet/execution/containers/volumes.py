"""Volumes: what is kept between jobs, what ends with the job, what is a directory of the machine.

Rule: the builds directory has a volume in any case, kept where the next job may fetch into it. A place is where helper
stages find a volume's files: all that lies on the way to, at or below the directories of builds and caches.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet.execution.containers.names import Names, label
from fleet.execution.refused import misconfigured
from fleet.settings.docker import DockerTable


@dataclass(slots=True, kw_only=True)
class Storage:
    """The volumes of a job, as the job file has them."""

    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    destination: str
    source: str = ""  # a directory of the machine or a volume's name; empty: a volume of ours
    mode: str = ""


def storage_of(
    *, docker: DockerTable, written: Iterable[str], names: Names, builds: str, cache: str, project: str, keeps: bool
) -> Storage:
    """All volumes; `written` are those of the settings, variables filled in, `keeps`: the builds directory is kept."""
    storage = Storage()
    seen: set[str] = set()
    for text in written:
        mount = _read(text, project)
        if mount.destination in seen:
            storage.warnings.append(f"volume {text!r} is left out: there is one at {mount.destination} already")
            continue
        seen.add(mount.destination)
        if mount.source:
            _add_given(storage, mount)
        else:
            _add_own(storage, mount, docker, names, is_kept=not docker.disable_cache)
    if not any(_covers(each, builds) for each in seen):
        _add_own(storage, _Mount(destination=builds), docker, names, is_kept=keeps and not docker.disable_cache)
    storage.places = [each for each in storage.places if _is_of_interest(each["path"], (builds, cache))]
    if not any(_covers(each["path"], cache) for each in storage.places):
        storage.places.append({"path": cache})
    return storage


def covers_builds(written: Iterable[str], builds: str) -> bool:
    """Whether a directory of the machine is mounted where builds are: jobs of several slots then meet in it."""
    mounts = [_read(text, "/") for text in written]
    return any(each.source.startswith("/") and _covers(each.destination, builds) for each in mounts)


def _read(text: str, project: str) -> _Mount:
    parts = text.split(":")
    if len(parts) > 3 or not text.strip():
        raise misconfigured(f"volume {text!r} of [runners.docker] is not understood: write /path, or source:/path:ro")
    if len(parts) == 1:
        return _Mount(destination=posixpath.normpath(posixpath.join(project, text.strip())))
    if len(parts) == 2 and not parts[1].startswith("/"):  # a volume of ours with a mode
        return _Mount(destination=posixpath.normpath(posixpath.join(project, parts[0])), mode=parts[1])
    return _Mount(destination=posixpath.normpath(parts[1]), source=parts[0], mode=parts[2] if len(parts) == 3 else "")


def _add_given(storage: Storage, mount: _Mount) -> None:
    storage.mounts.append(_written(mount.source, mount))
    key = "host_path" if mount.source.startswith("/") else "volume"
    storage.places.append({"path": mount.destination, key: mount.source})


def _add_own(storage: Storage, mount: _Mount, docker: DockerTable, names: Names, *, is_kept: bool) -> None:
    """A volume of ours; kept ones may lie in a directory of the machine."""
    if is_kept and docker.cache_dir:
        place = hashlib.md5(mount.destination.encode(), usedforsecurity=False).hexdigest()
        suffix = "-protected" if names.is_protected else ""
        path = f"{docker.cache_dir.rstrip('/')}/{names.volumes}/{place}{suffix}"
        storage.mounts.append(_written(path, mount))
        storage.places.append({"path": mount.destination, "host_path": path})
        return
    name = names.volume(mount.destination, is_kept=is_kept)
    labels = {
        **label("type", "cache"),
        **label("destination", mount.destination),
        **label("protected", str(names.is_protected).lower()),
        **label("reusable", str(is_kept).lower()),
    }
    storage.volumes.append(
        {
            "name": name,
            "keep": is_kept or docker.volume_keep,
            "labels": labels,
            "driver": docker.volume_driver or "",
            "driver_options": dict(docker.volume_driver_ops),
        }
    )
    storage.mounts.append(_written(name, mount))
    storage.places.append({"path": mount.destination, "volume": name})


def _written(source: str, mount: _Mount) -> str:
    return f"{source}:{mount.destination}{':' + mount.mode if mount.mode else ''}"


def _covers(destination: str, path: str) -> bool:
    return path == destination or path.startswith(destination.rstrip("/") + "/")


def _is_of_interest(destination: str, paths: Iterable[str]) -> bool:
    return any(_covers(destination, path) or _covers(path, destination) for path in paths)
