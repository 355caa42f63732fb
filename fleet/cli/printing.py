"""How answers are printed: tables on a terminal, aligned columns into a pipe, JSON for programs.

Rule: what a program reads goes to standard output and nothing else does; remarks for people go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

Row = Mapping[str, Any]


def note(text: str) -> None:
    """A remark for people."""
    click.echo(text, err=True)


def shown(value: Any) -> str:
    """A value in a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(each) for each in value) or "-"
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Printer:
    """Prints to standard output."""

    as_json: bool = False

    def value(self, value: Any) -> None:
        """A JSON value."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))

    def table(self, rows: Sequence[Row], columns: Mapping[str, str], *, empty: str) -> None:
        """Rows under headings; `columns` is key -> heading, `empty` is said when there are none."""
        if self.as_json:
            self.value(list(rows))
        elif not rows:
            note(empty)
        elif sys.stdout.isatty():
            from fleet.cli.tables import print_table  # noqa: PLC0415  rich is slow to load, and a pipe needs none of it

            print_table(rows, columns, shown)
        else:
            _plain_table(rows, columns)

    def fields(self, value: Row, titles: Mapping[str, str]) -> None:
        """One thing: a line for each of its values."""
        if self.as_json:
            self.value(value)
            return
        width = max(len(each) for each in titles.values())
        for key, title in titles.items():
            click.echo(f"{title.ljust(width)}  {shown(value.get(key))}")


def _plain_table(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    lines = [list(columns.values())] + [[shown(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
