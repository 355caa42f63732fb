"""The `[[runners]]` entries as they stand in the file, also those that cannot run just now.

Rule: registration works on what is written, entry by entry, so that one broken entry is in nobody's way. Values with
variables are filled in to be used, and never written back filled in.
"""

from __future__ import annotations

import pathlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet import __version__
from fleet.cli.exits import ConfigInvalid, Failed
from fleet.execution.features import features_of
from fleet.gitlab.client import GitLab, Info
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.identity import system_id
from fleet.gitlab.info import build_info
from fleet.runtime.clock import Clock
from fleet.runtime.servers import USER_AGENT
from fleet.settings.editing import RunnerMatch
from fleet.settings.entries import resolved
from fleet.settings.environment import Env, UndefinedVariable, expand
from fleet.settings.runner import short_token

PATIENCE_S = 10.0  # a person waits: longer pauses that GitLab asks for are told and not waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One entry.

    Attributes:
        written: its keys as they stand in the file.
        problem: why it cannot be used with GitLab; None when it can.
    """

    index: int
    name: str
    url: str
    token: str = field(repr=False)
    id: int
    executor: str
    directory: str
    written: Mapping[str, Any] = field(repr=False)
    problem: str | None = None

    @property
    def shown_as(self) -> str:
        """How people are told which one it is."""
        return self.name or (f"number {self.id} of {self.url}" if self.id else f"entry {self.index + 1}")

    @property
    def match(self) -> RunnerMatch:
        """What finds it in the file again."""
        return RunnerMatch(url=self.url, id=self.id, token=self.token, name=self.name)

    @property
    def endpoint(self) -> Endpoint:
        """Its server."""
        files = {name: resolved(self.written.get(name.replace("_", "-")), self.directory) for name in TLS_FILES}
        return Endpoint(url=self.url, **files)

    def view(self) -> dict[str, Any]:
        """For a list; the token is cut short."""
        return {
            "name": self.name,
            "id": self.id or None,
            "url": self.url,
            "executor": self.executor,
            "token": short_token(self.token),
        }


TLS_FILES = ("tls_ca_file", "tls_cert_file", "tls_key_file")


def read_entries(path: pathlib.Path, env: Env, *, may_be_missing: bool = False) -> list[FileEntry]:
    """Every entry of the file.

    Raises:
        ConfigInvalid: there is no such file, or it is no TOML.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        if may_be_missing:
            return []
        raise ConfigInvalid(f"there is no file {path}: run fleetctl register, or name another with --config") from exc
    except OSError as exc:
        raise ConfigInvalid(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"{path} is not TOML: {exc}") from exc
    written = raw.get("runners", [])
    if not isinstance(written, list) or not all(isinstance(each, dict) for each in written):
        raise ConfigInvalid(f"{path}: runners is no list of tables: write each runner as [[runners]]")
    return [_entry(index, each, str(path.parent), env) for index, each in enumerate(written)]


def _entry(index: int, written: Mapping[str, Any], directory: str, env: Env) -> FileEntry:
    problem, values = None, {}
    for key in ("url", "token"):
        try:
            values[key] = expand(str(written.get(key, "")), env)
        except UndefinedVariable as exc:
            values[key], problem = "", f"its {key} {exc}"
    if problem is None and not (values["url"] and values["token"]):
        problem = "it has no url or no token"
    number = written.get("id")
    return FileEntry(
        index=index,
        name=str(written.get("name", "")),
        url=values["url"].strip().rstrip("/"),
        token=values["token"],
        id=number if isinstance(number, int) else 0,
        executor=str(written.get("executor", "")),
        directory=directory,
        written=written,
        problem=problem,
    )


def chosen(
    entries: Iterable[FileEntry],
    *,
    name: str | None = None,
    url: str | None = None,
    token: str | None = None,
    number: int = 0,
) -> list[FileEntry]:
    """The entries that are meant.

    Raises:
        Failed: there is none.
    """
    found = [
        each
        for each in entries
        if (name is None or each.name == name)
        and (url is None or each.url == url.rstrip("/"))
        and (token is None or each.token == token)
        and (not number or each.id == number)
    ]
    if not found:
        raise Failed("no [[runners]] entry is the one that was named: fleetctl list shows the entries")
    return found


def client_for(endpoint: Endpoint) -> GitLab:
    """A client of a server; close it."""
    return GitLab(endpoint, user_agent=USER_AGENT, now=Clock().wall, longest_wait_s=PATIENCE_S)


def info_for(executor: str, shell: str | None, labels: Mapping[str, str] | None = None) -> Info:
    """What GitLab is told of us: the same that the manager tells it."""
    return build_info(
        version=__version__,
        executor=executor,
        shell=shell or "bash",
        features=features_of(executor),
        labels=labels,
    )


def our_system_id(path: pathlib.Path) -> str:
    """The manager's identity towards GitLab, kept beside the configuration."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise Failed(f"{path.parent} cannot be made: {exc.strerror}") from exc
    return system_id(path.parent)
