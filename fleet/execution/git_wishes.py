"""What a job wants of git, read from its payload and variables.

Rule: here the words are read and weighed; `sources` and `submodules` write the commands.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.layout import Layout
from fleet.execution.refused import misconfigured
from fleet.execution.variables import Variables
from fleet.gitlab.payload import JobPayload

ALL_REFS = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


class Strategy(StrEnum):
    CLONE = "clone"
    FETCH = "fetch"
    NONE = "none"
    EMPTY = "empty"


class SubmoduleStrategy(StrEnum):
    NONE = "none"
    NORMAL = "normal"
    RECURSIVE = "recursive"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmoduleWishes:
    """What GIT_SUBMODULE_* say."""

    strategy: SubmoduleStrategy
    paths: tuple[str, ...]
    depth: int
    update_flags: tuple[str, ...]
    forces_https: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GitWishes:
    """What to bring, and how.

    Attributes:
        remote: without credentials.
        clean_flags: None is no cleaning at all.
        has_git: git is on the machine.
        request_options: `-c name=value` for whatever speaks to the server.
    """

    strategy: Strategy
    remote: str
    sha: str
    ref: str
    refspecs: tuple[str, ...]
    depth: int
    object_format: str
    checks_out: bool
    clean_flags: tuple[str, ...] | None
    fetch_flags: tuple[str, ...]
    clone_flags: tuple[str, ...]
    clones_natively: bool
    pulls_lfs: bool
    cleans_config: bool
    marks_safe: bool
    has_git: bool
    request_options: tuple[str, ...]
    submodules: SubmoduleWishes


def strategy_of(payload: JobPayload, variables: Variables) -> Strategy:
    """GIT_STRATEGY, else what the project allows."""
    said = variables.get("GIT_STRATEGY").strip()
    if not said:
        return Strategy.FETCH if payload.allow_git_fetch else Strategy.CLONE
    try:
        return Strategy(said)
    except ValueError:
        raise misconfigured(f"GIT_STRATEGY is {said!r}: it can be clone, fetch, none or empty") from None


def git_wishes(
    *,
    payload: JobPayload,
    runner: RunnerFacts,
    machine: MachineFacts,
    lease: LeaseFacts,
    variables: Variables,
    flags: Mapping[str, bool],
    layout: Layout,
) -> GitWishes:
    """Read all of it."""
    info = payload.git_info
    strategy = strategy_of(payload, variables)
    clean = variables.get("GIT_CLEAN_FLAGS").strip()
    keeps_config = runner.executor == "shell" or strategy is Strategy.NONE
    return GitWishes(
        strategy=strategy,
        remote=remote_url(payload, runner, variables),
        sha=info.sha,
        ref=info.ref,
        refspecs=info.refspecs or ALL_REFS,
        depth=max(0, info.depth),
        object_format=info.repo_object_format or "sha1",
        checks_out=variables.is_on("GIT_CHECKOUT", default=True),
        clean_flags=None if clean == "none" else tuple(clean.split()) or ("-ffdx",),
        fetch_flags=_flags(variables.get("GIT_FETCH_EXTRA_FLAGS"), ("--prune", "--quiet")),
        clone_flags=_flags(variables.get("GIT_CLONE_EXTRA_FLAGS"), ()),
        clones_natively=flags["FF_USE_GIT_NATIVE_CLONE"],
        pulls_lfs=not variables.is_on("GIT_LFS_SKIP_SMUDGE", default=False),
        cleans_config=runner.clean_git_config if runner.clean_git_config is not None else not keeps_config,
        marks_safe=runner.safe_directory_checkout,
        has_git=machine.git is not None,
        request_options=_request_options(runner, lease, flags, layout),
        submodules=_submodules(variables, max(0, info.depth)),
    )


def remote_url(payload: JobPayload, runner: RunnerFacts, variables: Variables) -> str:
    """The repository's address without credentials; the runner's `clone_url` replaces the server's part."""
    plain = without_credentials(payload.git_info.repo_url)
    if not runner.clone_url:
        return plain
    path = variables.get("CI_PROJECT_PATH") or payload.job_info.project_full_path
    if not path:
        return runner.clone_url.rstrip("/") + urllib.parse.urlsplit(plain).path
    return f"{runner.clone_url.rstrip('/')}/{path}.git"


def without_credentials(url: str) -> str:
    """The same address for everybody."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _flags(said: str, default: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(said.split())
    return () if words == ("none",) else words or default


def _request_options(
    runner: RunnerFacts, lease: LeaseFacts, flags: Mapping[str, bool], layout: Layout
) -> tuple[str, ...]:
    # given on the command line, because git hands those on to the submodules' own processes
    options = [
        f"include.path={layout.git_config}",
        f"http.userAgent=fleet {runner.version} {runner.executable_arch}",
    ]
    if flags["FF_USE_GITALY_CORRELATION_ID"] and lease.correlation_id:
        options.append(f"http.extraHeader=X-Gitaly-Correlation-ID: {lease.correlation_id}")
    if flags["FF_USE_GIT_BUNDLE_URIS"]:
        options.append("transfer.bundleURI=true")
    return tuple(word for option in options for word in ("-c", option))


def _submodules(variables: Variables, depth: int) -> SubmoduleWishes:
    said = variables.get("GIT_SUBMODULE_STRATEGY").strip() or "none"
    try:
        strategy = SubmoduleStrategy(said)
    except ValueError:
        raise misconfigured(f"GIT_SUBMODULE_STRATEGY is {said!r}: it can be none, normal or recursive") from None
    own = variables.get("GIT_SUBMODULE_DEPTH").strip()
    if own and not (own.isascii() and own.isdigit()):
        raise misconfigured(f"GIT_SUBMODULE_DEPTH is {own!r}: it is a whole number, 0 for the whole history")
    return SubmoduleWishes(
        strategy=strategy,
        paths=tuple(variables.get("GIT_SUBMODULE_PATHS").split()),
        depth=int(own) if own else depth,
        update_flags=_flags(variables.get("GIT_SUBMODULE_UPDATE_FLAGS"), ()),
        forces_https=variables.is_on("GIT_SUBMODULE_FORCE_HTTPS", default=False),
    )
