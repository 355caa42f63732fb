"""Collects problems while a file is read, each with its line, and turns pydantic's errors into words for people.

Rule: no value is repeated in a message, only its kind, because any value may be a secret; validators that know their
key to be harmless may name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fleet.settings.positions import Path, Positions
from fleet.settings.problems import Problem, Severity, key_text
from fleet.settings.section import Section

S = TypeVar("S", bound=Section)

WANTED = {
    "bool_type": "true or false",
    "date_type": "a date and time",
    "datetime_type": "a date and time",
    "dict_type": "a table",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a table",
    "string_type": "a text in quotes",
    "tuple_type": "a list",
    "enum": "one of {expected}",
    "literal_error": "one of {expected}",
}
BOUNDS = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "missing": "is missing: it must be set",
    "string_too_short": "must not be empty",
}
KINDS = (
    (bool, "true or false"),
    (str, "a text"),
    (int, "a whole number"),
    (float, "a number"),
    (Mapping, "a table"),
    (list, "a list"),
    ((datetime, date, time), "a date or time"),
)


class Findings:
    """The problems of one file, in the order they were found."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self.problems: list[Problem] = []

    @property
    def are_fatal(self) -> bool:
        """Something makes the whole file unusable."""
        return any(each.severity is Severity.ERROR for each in self.problems)

    def add(self, severity: Severity, path: Path, message: str) -> None:
        """Note a problem of the key at `path`."""
        self.problems.append(
            Problem(
                severity=severity,
                message=message,
                key=key_text(path),
                line=self.positions.line(path),
                runner=path[1] if len(path) > 1 and path[0] == "runners" and isinstance(path[1], int) else None,
            )
        )

    def error(self, path: Path, message: str) -> None:
        """The file cannot be used."""
        self.add(Severity.ERROR, path, message)

    def stop(self, path: Path, message: str) -> None:
        """The `[[runners]]` entry around `path` cannot be used."""
        self.add(Severity.ENTRY_ERROR, path, message)

    def warn(self, path: Path, message: str) -> None:
        """The file works, but perhaps not as its author thinks."""
        self.add(Severity.WARNING, path, message)

    def validated(self, model: type[S], raw: Mapping[str, Any], path: Path) -> S | None:
        """The table as a value; None, and an error noted for each wrong key, when it is not one."""
        try:
            return model.model_validate(raw)
        except ValidationError as exc:
            for each in exc.errors(include_url=False):
                self.error((*path, *each["loc"]), _message(each))
        return None


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in WANTED:
        return f"must be {WANTED[kind].format(**context)}, not {kind_of(error['input'])}"
    if kind in BOUNDS:
        return BOUNDS[kind].format(**context)
    return str(context.get("error", error["msg"]))


def kind_of(value: object) -> str:
    """What a TOML value is, in words."""
    return next((text for kind, text in KINDS if isinstance(value, kind)), "something else")
