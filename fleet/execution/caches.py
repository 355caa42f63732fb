"""Which caches a job restores and saves, under which keys, and where each archive lies.

    on the machine    <cache directory>/<group>/<project>/<key>/cache.zip
    in the store      [<Path>/][runner/<short token>/]project/<id>/<key>

Rule: pure, and the one place that makes names: an address is signed for a name from here and for no other. A key is the
job's to choose, so whatever it holds it ends below its project's prefix, or there is no cache. What is wrong with a
cache is a warning, never a failure of the job.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.execution.artifacts import PROXIES
from fleet.execution.cleaning import clean
from fleet.execution.facts import MachineFacts, RunnerFacts
from fleet.execution.flags import as_bool
from fleet.execution.layout import project_path
from fleet.execution.timeouts import attempts, parse_duration_s
from fleet.execution.variables import Variables
from fleet.gitlab.payload import Cache, JobPayload

ARCHIVE = "cache.zip"  # its name in every format, as GitLab Runner's
PROTECTED = "-protected"
FORMATS = ("zip", "tarzstd", "zipzstd")
LEVELS = ("fastest", "fast", "default", "slow", "slowest")
POLICIES: Mapping[str, tuple[bool, bool]] = {  # policy -> (restores, saves)
    "": (True, True), "pull-push": (True, True), "pull": (True, False), "push": (False, True),
}  # fmt: skip
WHEN: Mapping[str, tuple[str, ...]] = {  # `when` -> the stages that save
    "": ("success",), "on_success": ("success",), "on_failure": ("failure",), "always": ("success", "failure"),
}  # fmt: skip
TIMEOUT_MIN = 10
_ENCODED = {"%2f": "/", "%2e": "."}
_ENCODED_PART = re.compile("%2[fe]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """One key of a cache.

    Attributes:
        name: as it is shown.
        object_name: in the store.
        other_name: what the object would be called without, or with, FF_HASH_CACHE_KEYS: looked for, never written.
        local: path of the archive on the machine.
        digest: of `object_name`, to know it again.
    """

    name: str
    object_name: str
    other_name: str
    local: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.object_name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheItem:
    """One cache of the job; the first key is its own, the others are fallbacks."""

    keys: tuple[CacheKey, ...]
    paths: tuple[str, ...]
    untracked: bool
    restores: bool
    saves_on: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """All caches of a job, and how they are transferred.

    Attributes:
        root: the cache directory on the machine, of all projects.
        protected: to be kept apart from those of unprotected refs.
        attempts: to restore them.
        removes_torn: take away what an archive that could not be unpacked may have left.
        meter_s: how often progress is told; 0 is never.
        environment: the proxies that the job names.
    """

    root: str = "/"
    protected: bool = False
    items: tuple[CacheItem, ...] = ()
    warnings: tuple[str, ...] = ()
    form: str = "zip"
    level: str = "default"
    timeout_s: float = TIMEOUT_MIN * 60.0
    attempts: int = 1
    removes_torn: bool = False
    meter_s: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Where the archives of one project lie."""

    prefix: str
    folder: str
    hashed: bool

    def of(self, raw: str) -> CacheKey | None:
        """The key with its places; None when nothing is left of it."""
        raw = clean(raw)
        plain = sanitised(raw)
        if not plain:
            return None
        digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()
        sharded = f"{digest[:2]}/{digest}"
        own, other = (sharded, plain) if self.hashed else (plain, sharded)
        return CacheKey(
            name=plain,
            object_name=f"{self.prefix}/{own}",
            other_name=f"{self.prefix}/{other}",
            local=posixpath.join(self.folder, digest if self.hashed else plain, ARCHIVE),
        )


def plan_of(
    *,
    payload: JobPayload,
    runner: RunnerFacts,
    machine: MachineFacts,
    variables: Variables,
    flags: Mapping[str, bool],
) -> CachePlan:
    """The job's caches."""
    warnings: list[str] = []
    names = Names(
        prefix=prefix_of(payload, runner),
        folder=posixpath.join(cache_root(runner, machine), project_path(payload)),
        hashed=flags["FF_HASH_CACHE_KEYS"],
    )
    found = (_item(cache, payload, variables, names, warnings) for cache in payload.cache)
    items = tuple(item for item in found if item is not None)
    if not items:
        return CachePlan(warnings=tuple(warnings))
    return CachePlan(
        root=cache_root(runner, machine),
        protected=has_protected_caches(payload, items),
        items=items,
        form=_word(variables, "CACHE_COMPRESSION_FORMAT", FORMATS, "zip", warnings),
        level=_word(variables, "CACHE_COMPRESSION_LEVEL", LEVELS, "default", warnings),
        timeout_s=_timeout_s(variables.get("CACHE_REQUEST_TIMEOUT"), warnings),
        attempts=attempts(variables.get("RESTORE_CACHE_ATTEMPTS")),
        removes_torn=flags["FF_CLEAN_UP_FAILED_CACHE_EXTRACT"],
        meter_s=max(0.0, parse_duration_s(variables.get("TRANSFER_METER_FREQUENCY").strip() or "0") or 0.0),
        environment={name: value for name in PROXIES if (value := variables.get(name))},
        warnings=tuple(warnings),  # after all that may add to them
    )


def prefix_of(payload: JobPayload, runner: RunnerFacts) -> str:
    """What the names of all objects of a project begin with."""
    path = sanitised(runner.cache.path)
    parts = [path] if path else []
    if not runner.cache.shared:
        parts += ["runner", runner.short_token]
    return "/".join((*parts, "project", str(payload.job_info.project_id)))


def cache_root(runner: RunnerFacts, machine: MachineFacts) -> str:
    """The cache directory on the machine."""
    return posixpath.normpath(posixpath.join(machine.home or "/", runner.cache_dir or "cache"))


def sanitised(key: str) -> str:
    """A key that leads nowhere but down: `.` and `..` are walked inside of a root of their own."""
    decoded = _ENCODED_PART.sub(lambda found: _ENCODED[found[0].lower()], key).replace("\\", "/")
    resolved = decoded
    while (trimmed := posixpath.normpath("/" + resolved.rstrip().rstrip("/")).lstrip("/")) != resolved:
        resolved = trimmed  # what was trimmed off may lay bare a further `..`
    return resolved


def is_protected(payload: JobPayload) -> bool:
    """Whether the job's ref is protected.

    Where GitLab does not say, its own variable does: the first, for a job's author can add more of the same name.
    """
    if payload.git_info.protected is not None:
        return payload.git_info.protected
    said = next((each.value for each in payload.variables if each.key == "CI_COMMIT_REF_PROTECTED"), "")
    return as_bool(said) is True


def has_protected_caches(payload: JobPayload, items: tuple[CacheItem, ...]) -> bool:
    """Whether what jobs leave for each other is to be kept apart from that of unprotected refs."""
    return is_protected(payload) or any(key.name.endswith(PROTECTED) for item in items for key in item.keys)


def restore_transfer(plan: CachePlan, project: str) -> dict[str, Any] | None:
    """What `restore_cache` does, for the job file; the addresses are put in when the job starts."""
    items = [
        {"paths": list(item.paths), "keys": [_key(item, index, number) for number in range(len(item.keys))]}
        for index, item in enumerate(plan.items)
        if item.restores
    ]
    special = {"removes_torn": plan.removes_torn, "is_told": plan.attempts > 1}
    return _transfer(plan, "restore_cache", project, items) | special if items else None


def archive_transfer(plan: CachePlan, project: str, on: str, max_bytes: int) -> dict[str, Any] | None:
    """What `archive_cache` does after success or failure."""
    items = [
        {"paths": list(item.paths), "untracked": item.untracked, "keys": [_key(item, index, 0)]}
        for index, item in enumerate(plan.items)
        if on in item.saves_on
    ]
    return _transfer(plan, "archive_cache", project, items) | {"max_bytes": max_bytes} if items else None


def _transfer(plan: CachePlan, do: str, project: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "do": do, "root": project, "folder": plan.root, "protected": plan.protected, "items": items,
        "format": plan.form, "level": plan.level, "timeout_s": plan.timeout_s, "meter_s": plan.meter_s,
        "environment": dict(plan.environment), "notes": [],
    }  # fmt: skip


def _key(item: CacheItem, index: int, number: int) -> dict[str, Any]:
    key = item.keys[number]
    return {
        "name": key.name, "local": key.local, "cache": index, "key": number, "get": None, "other": None, "put": None,
        "ask": None,
    }  # fmt: skip


def _item(
    cache: Cache, payload: JobPayload, variables: Variables, names: Names, warnings: list[str]
) -> CacheItem | None:
    if not cache.paths and not cache.untracked:
        return None
    raw = variables.expand(cache.key) if cache.key.strip() else f"{payload.job_info.name}/{payload.git_info.ref}"
    own = names.of(raw)
    if own is None:
        warnings.append(f"the cache key {raw!r} names nothing below the project's own caches: there is no such cache")
        return None
    if own.name != raw:
        warnings.append(f"the cache key {raw!r} is used as {own.name!r}")
    policy, when = variables.expand(cache.policy).strip(), cache.when.strip()
    if policy not in POLICIES or when not in WHEN:
        what = f"policy {policy!r}" if policy not in POLICIES else f"when {when!r}"
        warnings.append(f"the cache {own.name!r} has the unknown {what}: it is neither restored nor saved")
        return None
    restores, saves = POLICIES[policy]
    return CacheItem(
        keys=(own, *_fallbacks(cache, variables, names, own, warnings)),
        paths=tuple(variables.expand(path) for path in cache.paths),
        untracked=cache.untracked,
        restores=restores,
        saves_on=WHEN[when] if saves else (),
    )


def _fallbacks(
    cache: Cache, variables: Variables, names: Names, own: CacheKey, warnings: list[str]
) -> Iterator[CacheKey]:
    """Each once. A variable must not lead a job to what only protected refs may write."""
    known = {own.object_name}
    last = variables.get("CACHE_FALLBACK_KEY")
    if sanitised(last).endswith(PROTECTED):
        warnings.append(f"CACHE_FALLBACK_KEY ends with {PROTECTED}: it is ignored")
        last = ""
    for raw in (*(variables.expand(each) for each in cache.fallback_keys), last):
        key = names.of(raw)
        if key is not None and key.object_name not in known:
            known.add(key.object_name)
            yield key


def _word(variables: Variables, name: str, words: tuple[str, ...], default: str, warnings: list[str]) -> str:
    said = variables.get(name).strip().lower()
    if said and said not in words:
        warnings.append(f"{name} is {said!r}: use one of {', '.join(words)}; {default} is taken")
    return said if said in words else default


def _timeout_s(text: str, warnings: list[str]) -> float:
    said = text.strip()
    if said.isdecimal() and int(said[:9]) > 0:
        return int(said[:9]) * 60.0
    if said:
        warnings.append(f"CACHE_REQUEST_TIMEOUT is {said!r}, no number of minutes: {TIMEOUT_MIN} is taken")
    return TIMEOUT_MIN * 60.0
