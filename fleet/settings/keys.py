"""Which keys of the file are known: ours and GitLab Runner's are told apart from typing errors.

Rule: every key is looked at, at every depth, so that one run names all that is wrong; a key that is not covered is
warned of once, with its whole table. What is left over is what the models take.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fleet.settings.manager import FleetTable, GlobalTable
from fleet.settings.positions import Path
from fleet.settings.runner import RunnerTable
from fleet.settings.section import Section
from fleet.settings.session import SessionServerTable
from fleet.settings.upstream import INSIDE, NOT_COVERED

TOP_TABLES: Mapping[str, type[Section]] = {
    "fleet": FleetTable,
    "session_server": SessionServerTable,
    "runners": RunnerTable,
}


class Keys:
    """Sorts the keys of one file; `unknown` and `not_covered` fill while `known` is called."""

    def __init__(self) -> None:
        self.unknown: list[tuple[Path, str]] = []
        self.not_covered: list[tuple[Path, str]] = []

    def top(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The keys at the top of the file that are covered; `fleet` and `runners` are taken as they are."""
        children = {**tables_of(GlobalTable), **dict.fromkeys(TOP_TABLES)}
        return self._sort(raw, children, (), ())

    def known(self, raw: Mapping[str, Any], model: type[Section], path: Path) -> dict[str, Any]:
        """`raw` without the keys that `model` does not know."""
        kept = self._sort(raw, tables_of(model), path, _names(path))
        if model.model_config.get("extra") == "allow":
            kept = {**raw, **kept}
        for key, child in tables_of(model).items():
            value = kept.get(key)
            if child is None:
                continue
            if isinstance(value, Mapping):
                kept[key] = self.known(value, child, (*path, key))
            elif isinstance(value, list):
                kept[key] = [
                    self.known(each, child, (*path, key, number)) if isinstance(each, Mapping) else each
                    for number, each in enumerate(value)
                ]
        return kept

    def _sort(
        self, raw: Mapping[str, Any], own: Mapping[str, object], path: Path, names: tuple[str, ...]
    ) -> dict[str, Any]:
        others = NOT_COVERED.get(names, {})
        model = all_tables().get(names)
        is_open = model is not None and model.model_config.get("extra") == "allow"
        kept = {}
        for written, value in raw.items():
            key = _spelled(written, own, names)
            if key in own:
                kept[key] = value
            elif key in others:
                self.not_covered.append(((*path, key), others[key]))
                self._inside(value, (*path, key), (*names, key))
            elif not is_open:
                self.unknown.append(((*path, key), _suggestion(key, {*own, *others}, names)))
        return kept

    def _inside(self, value: Any, path: Path, names: tuple[str, ...]) -> None:
        allowed = INSIDE.get(names)
        if allowed is None or not isinstance(value, Mapping):
            return
        lower = {each.lower() for each in allowed}  # GitLab Runner does not mind the case of these
        for key, inner in value.items():
            if key.lower() not in lower:
                self.unknown.append(((*path, key), _suggestion(key, set(allowed), names)))
            self._inside(inner, (*path, key), (*names, key))


def _spelled(key: str, own: Mapping[str, object], names: tuple[str, ...]) -> str:
    """The key as we write it: GitLab Runner does not mind case, and the keys of its cache are unlike all others."""
    if names[:2] != ("runners", "cache"):
        return key
    return next((each for each in own if each.lower() == key.lower()), key)


def _names(path: Path) -> tuple[str, ...]:
    return tuple(part for part in path if isinstance(part, str))


@cache
def tables_of(model: type[Section]) -> dict[str, type[Section] | None]:
    """The keys of a table as they are written; the value is the table below the key, where there is one."""
    return {field.alias or name: _section_in(field.annotation) for name, field in model.model_fields.items()}


def _section_in(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section_in(each) for each in typing.get_args(annotation))
    return next((each for each in found if each is not None), None)


@cache
def all_tables() -> dict[tuple[str, ...], type[Section]]:
    """Every table of the file by its path without numbers, e.g. `("runners", "autoscaler", "policy")`."""
    return {(): GlobalTable} | dict(_walk((), TOP_TABLES))


def _walk(
    above: tuple[str, ...], children: Mapping[str, type[Section] | None]
) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    for key, child in children.items():
        if child is not None:
            yield (*above, key), child
            yield from _walk((*above, key), tables_of(child))


def _suggestion(key: str, siblings: set[str], names: tuple[str, ...]) -> str:
    """What the person may have meant: a key of the same table, or the same key of another table."""
    lower = {each.lower().replace("-", "_"): each for each in siblings}
    wanted = key.lower().replace("-", "_")
    near = difflib.get_close_matches(wanted, lower, n=1, cutoff=0.6)
    if near and difflib.SequenceMatcher(None, wanted, near[0]).ratio() >= 0.75:
        return f"did you mean {lower[near[0]]!r}?"
    elsewhere = [table for table, model in all_tables().items() if key in tables_of(model) and table != names]
    if elsewhere:
        return f"it belongs in {table_text(elsewhere[0])}"
    if near:
        return f"the nearest known key is {lower[near[0]]!r}"
    return f"the keys of this table are {', '.join(sorted(siblings))}" if len(siblings) <= 12 else ""


@cache
def _arrays() -> frozenset[tuple[str, ...]]:
    """Tables written in double brackets."""
    found: set[tuple[str, ...]] = {("runners",)}
    for above, model in all_tables().items():
        for name, field in model.model_fields.items():
            if _section_in(field.annotation) is not None and typing.get_origin(field.annotation) is tuple:
                found.add((*above, field.alias or name))
    return frozenset(found)


def table_text(names: tuple[str, ...]) -> str:
    """How the header of a table is written."""
    if not names:
        return "the top of the file"
    dotted = ".".join(names)
    return f"[[{dotted}]]" if names in _arrays() else f"[{dotted}]"
