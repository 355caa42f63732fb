"""The keys of a `[[runners]]` entry as options of `fleetctl register`, drawn from the settings' own models.

Rule: `--limit` is the key `limit`, `--ssh-host` is `host` in `[runners.ssh]`, each with a twin in the environment
(`RUNNER_LIMIT`, `SSH_HOST`). Lists of tables and free tables have no option: they are written in the file.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import click
from pydantic import SecretStr

from fleet.settings.autoscaler import AutoscalerTable, ConnectorTable, PoolTable
from fleet.settings.runner import CustomBuildDirTable, InstanceTable, RunnerEntry, SshTable
from fleet.settings.section import Section

# table below the entry -> its model; the option's prefix is the path
TABLES: Mapping[tuple[str, ...], type[Section]] = {
    (): RunnerEntry,
    ("custom_build_dir",): CustomBuildDirTable,
    ("instance",): InstanceTable,
    ("ssh",): SshTable,
    ("autoscaler",): AutoscalerTable,
    ("autoscaler", "connector_config"): ConnectorTable,
    ("autoscaler", "fleet"): PoolTable,
}
OWN = {"name", "url", "token", "id", "executor", "token_obtained_at", "token_expires_at"}
ENV_OF = {
    "tls-ca-file": "CI_SERVER_TLS_CA_FILE",
    "tls-cert-file": "CI_SERVER_TLS_CERT_FILE",
    "tls-key-file": "CI_SERVER_TLS_KEY_FILE",
    "clone_url": "CLONE_URL",
    "environment": "RUNNER_ENV",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that has an option.

    Attributes:
        path: the tables below the entry that it stands in.
        name: as in the file.
        kind: type of the option.
    """

    path: tuple[str, ...]
    name: str
    kind: type
    many: bool
    about: str

    @property
    def parameter(self) -> str:
        """The option's name in the program."""
        return "key_" + "__".join((*self.path, self.name)).replace("-", "_")

    @property
    def option(self) -> str:
        """The option."""
        return "--" + "-".join((*self.path, self.name)).replace("_", "-")

    @property
    def variable(self) -> str:
        """Its twin in the environment."""
        known = ENV_OF.get(self.name) if not self.path else None
        return known or "_".join((*(self.path or ("runner",)), self.name)).replace("-", "_").upper()


def keys() -> Iterator[Key]:
    """Every key that has an option."""
    for path, model in TABLES.items():
        for name, field in model.model_fields.items():
            shape = _shape(field.annotation)
            if shape is None or (not path and name in OWN):
                continue
            about = " ".join((field.description or "").split()).replace("`", "").partition(". ")[0].rstrip(".")
            yield Key(path=path, name=field.alias or name, kind=shape[0], many=shape[1], about=about + ".")


def _shape(annotation: Any) -> tuple[type, bool] | None:
    """The type of an option, and whether it may be given more than once; None when one option cannot say it."""
    args = [each for each in typing.get_args(annotation) if each is not type(None)]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        inner = _shape(args[0])
        return None if inner is None or inner[0] is not str else (str, True)
    if origin is dict:
        return None
    if args:
        return _shape(args[0])
    if not isinstance(annotation, type):
        return None
    for known in (bool, int, float):
        if issubclass(annotation, known):
            return known, False
    return (str, False) if issubclass(annotation, (str, SecretStr, timedelta, Enum)) else None


def key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command an option for each key."""
    for key in reversed(list(keys())):
        names = [key.parameter, key.option, *(["--env"] if key.name == "environment" else [])]
        kind: Any = key.kind
        function = click.option(
            *names,
            type=kind,
            multiple=key.many,
            envvar=key.variable,
            default=None,
            metavar=_metavar(key),
            help=key.about,
        )(function)
    return function


def _metavar(key: Key) -> str:
    return {bool: "true|false", int: "N", float: "N"}.get(key.kind, "TEXT")


def entry_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entry's keys that were given, in their tables."""
    entry: dict[str, Any] = {}
    for key in keys():
        value = values.get(key.parameter)
        if value is None or value == ():
            continue
        table = entry
        for name in key.path:
            table = table.setdefault(name, {})
        table[key.name] = list(value) if key.many else value
    return entry


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above`, and of `below` what it does not say; tables are joined."""
    joined = dict(below)
    for key, value in above.items():
        old = joined.get(key)
        joined[key] = laid_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return joined


def plain(value: Any) -> Any:
    """A value of a template as the writer takes it."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, datetime)) else str(value)
