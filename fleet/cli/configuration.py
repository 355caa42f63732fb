"""`fleetctl config lint | show`: is the file right, and what is in force."""

from __future__ import annotations

from dataclasses import asdict

import click

from fleet.cli.exits import ConfigInvalid, Exit
from fleet.cli.files import loaded_for
from fleet.cli.invocation import command, invocation
from fleet.cli.printing import note
from fleet.settings.showing import as_json, as_toml


@click.group("config")
def config() -> None:
    """Check and show the configuration."""


@command("lint")
def lint() -> int:
    """Check the file: every problem with file, line, key and what to do.

    Warnings alone end with 0; an error, also one that stops a single runner, ends with 3.
    """
    asked = invocation()
    loaded = loaded_for(asked)
    if asked.printer.as_json:
        problems = [asdict(each) for each in loaded.problems]
        asked.printer.value({"file": loaded.path, "valid": not loaded.errors, "problems": problems})
    else:
        for line in loaded.lines():
            click.echo(line)
        if not loaded.problems:
            note(f"{loaded.path}: nothing is wrong")
    return Exit.CONFIG if loaded.errors else Exit.OK


@command("show")
def show() -> int:
    """Print what is in force, with every default filled in and every secret masked."""
    asked = invocation()
    loaded = loaded_for(asked)
    if loaded.settings is None:
        raise ConfigInvalid("\n".join(loaded.lines()))
    for line in loaded.lines():
        note(line)
    click.echo(as_json(loaded.settings) if asked.printer.as_json else as_toml(loaded.settings), nl=False)
    return Exit.OK


config.add_command(lint)
config.add_command(show)
