"""Reads the configuration file: `load(path, env)` gives settings, problems, or both; it never raises.

The steps: bytes -> TOML -> known keys -> tables as values -> runners and pools -> advice. Each step notes all that it
finds wrong, so that one run tells a person everything.
"""

from __future__ import annotations

import os
import pathlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from fleet.settings.addresses import is_loopback
from fleet.settings.advice import advise
from fleet.settings.entries import EXECUTORS, Entry, entries, resolved, unreadable
from fleet.settings.environment import Env, Overrides, UndefinedVariable, expand, state_dir
from fleet.settings.findings import Findings, kind_of
from fleet.settings.keys import Keys
from fleet.settings.labels import problem_with
from fleet.settings.manager import FleetSettings, FleetTable, GlobalTable, database_url
from fleet.settings.positions import Path, scan
from fleet.settings.problems import Problem, Severity
from fleet.settings.resolving import Around, Definition, resolve
from fleet.settings.runner import RunnerSettings, RunnerTable
from fleet.settings.settings import Loaded, Settings, StoppedRunner, content_hash

PLACE = re.compile(r"\s*\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
LARGEST_BYTES = 16 * 1024 * 1024


def load(
    path: str | pathlib.Path,
    env: Env,
    *,
    overrides: Overrides | None = None,
    executors: frozenset[str] = EXECUTORS,
) -> Loaded:
    """Read the file.

    Args:
        path: the configuration file.
        env: the environment, see `environment.current`.
        overrides: what the command line and the environment say instead.
        executors: those that work; entries with another are stopped.
    """
    absolute = os.path.abspath(path)
    try:
        with open(absolute, "rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return _unread(absolute, "there is no such file: write one, or run fleetctl register")
    except OSError as exc:
        return _unread(absolute, f"cannot be read: {exc.strerror}")
    return loads(content, absolute, env, overrides=overrides, executors=executors)


def loads(
    content: bytes,
    path: str,
    env: Env,
    *,
    overrides: Overrides | None = None,
    executors: frozenset[str] = EXECUTORS,
) -> Loaded:
    """As `load`, of bytes that were read already."""
    raw, text, problem = _parsed(content)
    if problem is not None:
        return Loaded(path=path, settings=None, problems=(problem,), content_hash=content_hash(content))
    reader = _Reader(Findings(scan(text)), path, env, overrides or Overrides())
    settings = reader.settings(raw, executors)
    return Loaded(
        path=path,
        settings=settings,
        problems=tuple(reader.findings.problems),
        content_hash=content_hash(content),
    )


def _unread(path: str, message: str) -> Loaded:
    return Loaded(path=path, settings=None, problems=(Problem(severity=Severity.ERROR, message=message),))


def _parsed(content: bytes) -> tuple[dict[str, Any], str, Problem | None]:
    if len(content) > LARGEST_BYTES:
        return {}, "", Problem(severity=Severity.ERROR, message="is larger than 16 MiB: this is no configuration file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        return {}, "", Problem(severity=Severity.ERROR, message="is not UTF-8 text from here on", line=line)
    try:
        return tomllib.loads(text), text, None
    except tomllib.TOMLDecodeError as exc:
        message = str(exc)
        place = PLACE.search(message)
        return (
            {},
            text,
            Problem(
                severity=Severity.ERROR,
                message=f"is not TOML: {PLACE.sub('', message)}",
                line=int(place["line"]) if place and place["line"] else text.count("\n") + 1,
                column=int(place["column"]) if place and place["column"] else None,
            ),
        )
    except RecursionError:
        return {}, text, Problem(severity=Severity.ERROR, message="is not TOML that can be read: nested too deeply")


class _Reader:
    """The steps after the TOML is read; problems go to `findings`."""

    def __init__(self, findings: Findings, path: str, env: Env, overrides: Overrides) -> None:
        self.findings = findings
        self.path = path
        self.directory = os.path.dirname(path)
        self.env = env
        self.overrides = overrides

    def settings(self, raw: Mapping[str, Any], executors: frozenset[str]) -> Settings | None:
        keys = Keys()
        known = keys.top(raw)
        written, runners = known.pop("fleet", {}), known.pop("runners", [])
        top = self.findings.validated(GlobalTable, keys.known(known, GlobalTable, ()), ())
        fleet = self._table(keys, FleetTable, written, ("fleet",))
        tables = self._runner_tables(keys, runners)
        self._note(keys)
        if self.findings.are_fatal or top is None or fleet is None:
            return None
        manager = self._fleet(fleet)
        if manager is None:
            return None
        top = self._overridden(top)
        found = entries(tables, self.findings, self.env, self.directory, executors)
        self._check_labels(found, top)
        around = Around(
            findings=self.findings,
            fleet=manager,
            concurrent=top.concurrent,
            env=self.env,
            directory=self.directory,
        )
        definitions = resolve(found, around)
        if self.findings.are_fatal:
            return None
        advise(top, manager, found, definitions, self.findings)
        return self._assembled(top, manager, found, definitions)

    def _check_labels(self, found: list[Entry], top: GlobalTable) -> None:
        for entry in found:
            problem = problem_with({**top.labels, **entry.table.labels})
            if problem is not None:
                entry.stop(self.findings, ("labels",), problem)

    def _note(self, keys: Keys) -> None:
        for path, hint in keys.unknown:
            self.findings.error(path, f"unknown key{'; ' + hint if hint else ''}")
        for path, why in keys.not_covered:
            self.findings.warn(path, f"has no effect: {why}")

    def _table(self, keys: Keys, model: type[Any], raw: object, path: Path) -> Any:
        if not isinstance(raw, Mapping):
            self.findings.error(path, f"must be a table, not {kind_of(raw)}")
            return None
        return self.findings.validated(model, keys.known(raw, model, path), path)

    def _runner_tables(self, keys: Keys, runners: object) -> list[tuple[int, RunnerTable]]:
        if not isinstance(runners, list):
            self.findings.error(("runners",), f"must be [[runners]], not {kind_of(runners)}: use double brackets")
            return []
        made = [(index, self._table(keys, RunnerTable, raw, ("runners", index))) for index, raw in enumerate(runners)]
        return [(index, table) for index, table in made if table is not None]

    def _fleet(self, table: FleetTable) -> FleetSettings | None:
        state = resolved(self.overrides.state_dir or table.state_dir or state_dir(self.env), self.directory) or ""
        values: dict[str, Any] = {name: getattr(table, name) for name in FleetTable.model_fields}
        values |= {
            "state_dir": state,
            "spool_dir": resolved(table.spool_dir, self.directory) or os.path.join(state, "spool"),
            "secret_key_file": resolved(table.secret_key_file, self.directory) or os.path.join(state, "secret.key"),
            "secret_key": self.env.get("FLEET_SECRET_KEY") or None,
            "secret_key_named": table.secret_key_file is not None,
            "on_term": self.overrides.on_term or table.on_term,
            "api_token": self._expanded(table, "api_token"),
        }
        written = self.overrides.database or self._expanded(table, "database") or os.path.join(state, "fleet.sqlite")
        try:
            values["database"] = database_url(written, self.directory)
        except ValueError as exc:
            self.findings.error(("fleet", "database"), str(exc))
        self._check_key_file(table, values["secret_key_file"])
        if not is_loopback(table.api_listen) and not values["api_token"]:
            self.findings.error(
                ("fleet", "api_listen"), "others than this host can reach it: set api_token, or use 127.0.0.1"
            )
        return None if self.findings.are_fatal else FleetSettings.model_validate(values)

    def _expanded(self, table: FleetTable, key: str) -> str | None:
        secret = getattr(table, key)
        if secret is None:
            return None
        try:
            return expand(secret.get_secret_value(), self.env)
        except UndefinedVariable as exc:
            self.findings.error(("fleet", key), f"{exc}; a dollar sign in a password is written %24")
            return None

    def _check_key_file(self, table: FleetTable, path: str) -> None:
        if table.secret_key_file is None or self.env.get("FLEET_SECRET_KEY"):
            return
        reason = unreadable(path)
        if reason is not None:
            self.findings.error(("fleet", "secret_key_file"), f"{reason}: make it with fleetctl db new-key")
        elif os.stat(path).st_mode & 0o077:
            self.findings.error(("fleet", "secret_key_file"), f"{path} can be read by others: run chmod 600 on it")

    def _overridden(self, top: GlobalTable) -> GlobalTable:
        given = {
            key: value
            for key in ("log_level", "log_format", "listen_address")
            if (value := getattr(self.overrides, key)) is not None
        }
        return top.model_copy(update=given)

    def _runner(self, entry: Entry, pool: Definition, top: GlobalTable) -> RunnerSettings:
        """The entry with everything filled in."""
        table = entry.table
        values = {name: getattr(table, name) for name in RunnerSettings.model_fields if hasattr(table, name)}
        values |= {
            "url": entry.url,
            "token": entry.token,
            "user": table.user or top.user,
            "labels": {**top.labels, **table.labels},
            "cache": table.cache.with_paths_from(self.directory),
            "tls_ca_file": resolved(table.tls_ca_file, self.directory),
            "tls_cert_file": resolved(table.tls_cert_file, self.directory),
            "tls_key_file": resolved(table.tls_key_file, self.directory),
            "key": entry.key,
            "index": entry.index,
            "line": self.findings.positions.line(entry.path),
            "pool": pool.name,
        }
        return RunnerSettings.model_validate(values)

    def _assembled(
        self, top: GlobalTable, fleet: FleetSettings, found: list[Entry], definitions: list[Definition]
    ) -> Settings:
        pool_of = {entry.index: each for each in definitions for entry in each.users}
        running = [entry for entry in found if entry.stopped is None]
        used = {each.name: [entry.key for entry in each.users if entry.stopped is None] for each in definitions}
        return Settings(
            path=self.path,
            global_=top,
            fleet=fleet,
            runners=tuple(self._runner(entry, pool_of[entry.index], top) for entry in running),
            pools=tuple(
                each.settings.model_copy(update={"runners": tuple(used[each.name])})
                for each in definitions
                if each.settings is not None and used[each.name]
            ),
            stopped=tuple(
                StoppedRunner(
                    index=entry.index,
                    key=entry.key,
                    name=entry.table.name,
                    pool=pool_of[entry.index].name if entry.index in pool_of else None,
                    reason=entry.stopped,
                )
                for entry in found
                if entry.stopped is not None
            ),
        )
