"""Draws `docs/reference/settings.md` from the models, so that the page and the program cannot disagree."""

from __future__ import annotations

import typing
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fleet.settings.durations import text_of
from fleet.settings.keys import all_tables, table_text
from fleet.settings.section import Section
from fleet.settings.upstream import NOT_COVERED

OURS = frozenset({("fleet",), ("runners", "autoscaler", "fleet"), ("runners", "autoscaler", "placements")})
TYPES: tuple[tuple[type, str], ...] = (
    (bool, "true/false"),
    (int, "integer"),
    (float, "number"),
    (timedelta, "duration"),
    (datetime, "date and time"),
    (SecretStr, "text, secret"),
)
HEAD = """\
# Settings

<!-- Drawn from fleet/settings by `fleet.settings.reference.page`; a test keeps the two equal. -->

One TOML file holds all settings. A `config.toml` of GitLab Runner is accepted as it is: keys that are not covered are
warned of, keys that nobody knows are errors. Tables marked *ours* are not known to GitLab Runner.

A duration is a text with units, `"90s"`, `"20m0s"`, `"1h30m"`; a bare `0` is allowed. Relative paths start at the
directory of the file. An empty text is the same as leaving the key out. `fleetctl config lint` checks a file,
`fleetctl config show` prints what is in force.

The file is `--config`, else `$CONFIG_FILE`, else the first that exists of `/etc/fleet/fleet.toml` and
`/etc/gitlab-runner/config.toml` (for root), or `~/.config/fleet/fleet.toml` and `~/.gitlab-runner/config.toml`. A flag
beats the environment (`LOG_LEVEL`, `LOG_FORMAT`, `LISTEN_ADDRESS`, `RUNNER_DEBUG`, `FLEET_STATE_DIR`,
`FLEET_DATABASE`), which beats the file.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    parts += [_table(names, model) for names, model in all_tables().items()]
    parts.append(_not_covered())
    return "\n".join(parts)


def _table(names: tuple[str, ...], model: type[Section]) -> str:
    title = "Top of the file" if not names else f"`{table_text(names)}`"
    mark = " (ours)" if names in OURS else ""
    about = " ".join((model.__doc__ or "").split()).partition(": ")[2] or " ".join((model.__doc__ or "").split())
    lines = [
        f"## {title}{mark}",
        "",
        about[:1].upper() + about[1:],
        "",
        "| key | type | default | what |",
        "| --- | --- | --- | --- |",
    ]
    below = {path[-1] for path in all_tables() if path and path[:-1] == names}
    for name, field in model.model_fields.items():
        key = field.alias or name
        what = " ".join((field.description or "").split()).replace("|", "\\|")
        kind = _type(field.annotation)
        if key in below:
            kind = "list of tables" if table_text((*names, key)).startswith("[[") else "table"
        lines.append(f"| `{key}` | {kind} | {'' if key in below else _default(field)} | {what} |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    args = [each for each in typing.get_args(annotation) if each is not type(None)]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return f"list of {_type(args[0])}s"
    if origin is dict:
        return "table of texts" if args[1] is str else "table of true/false" if args[1] is bool else "table"
    if args:
        return _type(args[0])
    if not isinstance(annotation, type):
        return "text"
    if issubclass(annotation, Enum):
        return " / ".join(f"`{each.value}`" for each in annotation)
    return next((text for kind, text in TYPES if issubclass(annotation, kind)), "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if value is PydanticUndefined or value is None or value == () or value == SecretStr(""):
        return ""
    if isinstance(value, timedelta):
        return f'`"{text_of(value)}"`'
    if isinstance(value, Enum):
        return f'`"{value.value}"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`".replace("'", '"')
    return f'`"{value}"`' if isinstance(value, str) and value else f"`{value}`" if value != "" else ""


def _not_covered() -> str:
    lines = ["## Keys of GitLab Runner that have no effect", "", "| where | key | why |", "| --- | --- | --- |"]
    for names, keys in NOT_COVERED.items():
        where = "top of the file" if not names else f"`{table_text(names)}`"
        lines += [f"| {where} | `{key}` | {why} |" for key, why in keys.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  this is how the page is drawn anew
