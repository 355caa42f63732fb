"""Changes a configuration's text in place: every byte that is not changed stays as it was.

`tomlkit` would be the usual tool, but it moves tables that stand between two `[[runners]]` and mixes line ends when it
writes, so it only words single values here. Rule: after each edit the new text is read again and must say what was
wanted and nothing else; otherwise nothing is changed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import tomlkit

from fleet.sdk import FleetError
from fleet.settings.environment import Env, UndefinedVariable, expand
from fleet.settings.positions import Header, Path, Positions, scan

NO_INSTANT = datetime(1, 1, 1, tzinfo=UTC)  # how GitLab Runner writes that there is none


class EntryNotFound(FleetError):
    """No `[[runners]]` entry of the file is the one that is meant."""

    slug = "runner_entry_not_found"


class TextNotEdited(FleetError):
    """The text is written in a way that cannot be edited in place."""

    slug = "config_not_edited"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerMatch:
    """Which entry is meant: that with this url and id, else that with this url and token, else that with this name.

    Attributes:
        url: of the server, with or without slash at its end.
        id: the runner's number; 0 where it is not known.
        token: its (old) token.
        name: what people call it.
    """

    url: str = ""
    id: int = 0
    token: str = ""
    name: str = ""

    def find(self, runners: list[Mapping[str, Any]], env: Env) -> int:
        """The index of the entry; raises `EntryNotFound`."""
        for test in (self._is_by_id, self._is_by_token, self._is_by_name):
            found = [index for index, entry in enumerate(runners) if test(entry, env)]
            if len(found) == 1:
                return found[0]
            if found:
                raise EntryNotFound(f"{len(found)} [[runners]] entries are {self._words()}: say which by url and id")
        raise EntryNotFound(f"no [[runners]] entry is {self._words()}: fleetctl list shows the entries")

    def _is_by_id(self, entry: Mapping[str, Any], env: Env) -> bool:
        return bool(self.id) and entry.get("id") == self.id and _same_url(entry, self.url, env)

    def _is_by_token(self, entry: Mapping[str, Any], env: Env) -> bool:
        return (
            bool(self.token)
            and _filled(entry.get("token"), env) == self.token
            and (not self.url or _same_url(entry, self.url, env))
        )

    def _is_by_name(self, entry: Mapping[str, Any], env: Env) -> bool:
        return bool(self.name) and entry.get("name") == self.name and (not self.url or _same_url(entry, self.url, env))

    def _words(self) -> str:
        parts = (f"of {self.url}" if self.url else "", f"number {self.id}" if self.id else "", self.name)
        return " ".join(each for each in parts if each) or "the one with this token"


def _same_url(entry: Mapping[str, Any], url: str, env: Env) -> bool:
    return _filled(entry.get("url"), env).rstrip("/") == url.rstrip("/")


def _filled(value: Any, env: Env) -> str:
    try:
        return expand(str(value), env)
    except UndefinedVariable:
        return str(value)


def with_runner(text: str, entry: Mapping[str, Any]) -> str:
    """`text` with one more `[[runners]]` entry at its end."""
    before = tomllib.loads(text)
    if "runners" in before and not any(header.path[:1] == ("runners",) for header in scan(text).headers):
        raise TextNotEdited("runners is written as one list: write each entry as its own [[runners]] table first")
    end = _line_end(text)
    block = "\n".join(_table_lines(entry, ("runners",), is_array=True)) + "\n"
    parts = [text]
    if text and not text.endswith("\n"):
        parts.append(end)
    if text.strip():
        parts.append(end)
    after = "".join(parts) + block.replace("\n", end)
    wanted = {**before, "runners": [*before.get("runners", []), dict(entry)]}
    return _proved(after, wanted)


def without_runner(text: str, which: RunnerMatch, env: Env) -> str:
    """`text` without an entry, its tables, and the comments that stand right above their headers."""
    before = tomllib.loads(text)
    index = which.find(before.get("runners", []), env)
    headers = scan(text).headers
    starts = [_section_start(text, header) for header in headers] + [len(text)]
    kept = [text[: starts[0]]]
    for number, header in enumerate(headers):
        if header.path[:2] != ("runners", index):
            kept.append(text[starts[number] : starts[number + 1]])
    rest = [entry for number, entry in enumerate(before["runners"]) if number != index]
    wanted = {key: value for key, value in before.items() if key != "runners"}
    return _proved("".join(kept), {**wanted, "runners": rest} if rest else wanted)


def with_values(text: str, which: RunnerMatch, values: Mapping[str, Any], env: Env) -> str:
    """`text` with keys of one entry set; None removes nothing and sets an instant to "none" where it stands."""
    before = tomllib.loads(text)
    index = which.find(before.get("runners", []), env)
    entry = dict(before["runners"][index])
    for key, value in values.items():
        path: Path = ("runners", index, key)
        if value is None and key not in entry:
            continue
        new = NO_INSTANT if value is None else value
        text = _set(text, path, new)
        entry[key] = new
    runners = [*before["runners"][:index], entry, *before["runners"][index + 1 :]]
    return _proved(text, {**before, "runners": runners})


def _set(text: str, path: Path, value: Any) -> str:
    positions = scan(text)
    span = positions.values.get(path)
    if span is not None:
        return text[: span.start] + worded(value) + text[span.end :]
    return _inserted(text, positions, path, value)


def _inserted(text: str, positions: Positions, path: Path, value: Any) -> str:
    """A new line in the entry's own part: after `token`, `id` or `url`, else after its header."""
    header = next((each for each in positions.headers if each.path == path[:2]), None)
    if header is None:
        raise TextNotEdited("runners is written as one list: write each entry as its own [[runners]] table first")
    anchors = [positions.values.get((*path[:2], key)) for key in ("token", "id", "url", "name")]
    anchor = next((each for each in anchors if each is not None), header.span)
    line_start = text.rfind("\n", 0, anchor.start) + 1
    indent = text[line_start : line_start + len(text[line_start:]) - len(text[line_start:].lstrip(" \t"))]
    if anchor is header.span:
        indent += "  "
    end = _line_end(text)
    line = f"{indent}{tomlkit.key(str(path[-1])).as_string()} = {worded(value)}"
    at = text.find("\n", anchor.end)
    if at < 0:
        return f"{text}{end}{line}{end}"
    return f"{text[: at + 1]}{line}{end}{text[at + 1 :]}"


def worded(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(tomlkit.item(value).as_string())


def _table_lines(table: Mapping[str, Any], names: tuple[str, ...], *, is_array: bool = False) -> list[str]:
    indent = "  " * (len(names) - 1)
    dotted = ".".join(tomlkit.key(each).as_string() for each in names)
    lines = [f"{indent}[[{dotted}]]" if is_array else f"{indent}[{dotted}]"]
    below: list[str] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            below += _table_lines(value, (*names, key))
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            for each in value:
                below += _table_lines(each, (*names, key), is_array=True)
        else:
            lines.append(f"{indent}  {tomlkit.key(key).as_string()} = {worded(value)}")
    return lines + below


def _section_start(text: str, header: Header) -> int:
    """Where a table begins: its header's line, or the comments right above it."""
    start = text.rfind("\n", 0, header.span.start) + 1
    while start > 0:
        above = text.rfind("\n", 0, start - 1) + 1
        if not text[above:start].lstrip().startswith("#"):
            break
        start = above
    return start


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _proved(text: str, wanted: Mapping[str, Any]) -> str:
    """`text`, if it says exactly what is wanted."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        said = None
    if said != wanted:
        raise TextNotEdited("the file is written in a way that cannot be edited in place: change it by hand")
    return text
