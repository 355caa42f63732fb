"""Draws the reference pages that come from the code: states and errors. `python -m tests.pages` writes them anew."""

from __future__ import annotations

import importlib
import pathlib
import pkgutil
from collections.abc import Mapping
from enum import StrEnum

import fleet
from fleet.model import lifecycle
from fleet.sdk import FleetError

REFERENCE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "reference"


def states() -> str:
    """`states.md`: every legal change of state, with when it happens."""
    parts = [
        "# States",
        "",
        "Drawn from `fleet/model/lifecycle.py`; nothing else may change a state. Each change is a line in the journal:",
        "`fleetctl explain` shows it with its reason.",
    ]
    tables: list[tuple[str, Mapping[StrEnum, Mapping[StrEnum, str]]]] = [
        ("Instance", lifecycle.INSTANCE),
        ("Lease", lifecycle.LEASE),
        ("Job", lifecycle.JOB),
    ]
    for title, table in tables:
        parts += ["", f"## {title}", "", "| from | to | when |", "| --- | --- | --- |"]
        parts += [f"| {old} | {new} | {when} |" for old, nexts in table.items() for new, when in nexts.items()]
        ends = ", ".join(f"`{state}`" for state, nexts in table.items() if not nexts)
        parts += ["", f"Ends: {ends}."]
    parts += [
        "",
        "## Deadlines of waiting states",
        "",
        "What passes its deadline goes on to `deleting`; there the deletion is asked for again. Pools may set",
        "their own (`[runners.autoscaler.fleet] creating_timeout` and others).",
        "",
        "| state | seconds |",
        "| --- | --- |",
    ]
    parts += [f"| {state} | {seconds} |" for state, seconds in lifecycle.INSTANCE_DEADLINES_S.items()]
    return "\n".join(parts) + "\n"


def every_module() -> list[str]:
    """Every module of the program but the agent, which stands alone, and programs."""
    found = pkgutil.walk_packages(fleet.__path__, "fleet.")
    return [m.name for m in found if not m.name.startswith("fleet.agent") and not m.name.endswith("__main__")]


def errors_of(kind: type[FleetError]) -> list[type[FleetError]]:
    """The error and all below it, parents first."""
    below = sorted(kind.__subclasses__(), key=lambda each: each.__name__)
    return [kind, *(each for child in below for each in errors_of(child))]


def errors() -> str:
    """`errors.md`: every error of ours, its slug in metrics, and what it means."""
    for name in every_module():
        importlib.import_module(name)
    parts = [
        "# Errors",
        "",
        "Drawn from the code. A message says what happened, where, and what to do next; the slug is its name in",
        "metrics, logs and the API.",
        "",
        "| error | slug | what it means |",
        "| --- | --- | --- |",
    ]
    seen: set[type[FleetError]] = set()
    for kind in errors_of(FleetError):
        if kind in seen or not kind.__module__.startswith("fleet."):
            continue
        seen.add(kind)
        depth = len([base for base in kind.__mro__ if issubclass(base, FleetError)]) - 1
        about = (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        about = " ".join(about.split())
        parts.append(f"| {'&nbsp;' * 2 * depth}`{kind.__name__}` | {kind.slug} | {about} |")
    return "\n".join(parts) + "\n"


PAGES = {"states.md": states, "errors.md": errors}


def main() -> None:
    """Write every page."""
    for name, draw in PAGES.items():
        (REFERENCE / name).write_text(draw(), encoding="utf-8")
        print(f"wrote docs/reference/{name}")


if __name__ == "__main__":
    main()
