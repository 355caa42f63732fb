"""Tables on a terminal; the only place that knows rich, which is loaded when there is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], shown: Callable[[Any], str]) -> None:
    """Print rows under headings; `shown` says how a value reads."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(row.get(key))) for key in columns))
    Console().print(table)
