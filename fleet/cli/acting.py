"""The commands that order something: drain, undrain, remove, reload, store sweep."""

from __future__ import annotations

import click

from fleet.cli.asking import source
from fleet.cli.exits import Exit
from fleet.cli.invocation import command, invocation


def _order(order: str, name: str = "", **how: bool) -> int:
    asked = invocation()
    with source(asked) as found:
        said = found.order(order, name, **how)
    if asked.printer.as_json:
        asked.printer.value(said)
    else:
        click.echo(said["message"])
    return Exit.OK


@command("drain")
@click.argument("instance")
def drain(instance: str) -> int:
    """Give an instance no more jobs; its machine goes when its last job has ended."""
    return _order("drain", instance)


@command("undrain")
@click.argument("instance")
def undrain(instance: str) -> int:
    """Give a draining instance jobs again."""
    return _order("undrain", instance)


@command("remove")
@click.argument("instance")
@click.option("--force", is_flag=True, help="Also when it runs jobs: they end as failed.")
def remove(instance: str, force: bool) -> int:
    """Delete an instance's machine, when it runs no job."""
    return _order("remove", instance, force=force)


@command("reload")
def reload() -> int:
    """Make the manager read its configuration again; a broken file leaves the old one in force."""
    return _order("reload")


@click.group("store")
def store() -> None:
    """Decide what may be done with the store's machines."""


@command("sweep")
@click.argument("switch", type=click.Choice(["on", "off"]))
def sweep(switch: str) -> int:
    """Let machines be deleted that carry this store's name and that no row knows, or not.

    It is off after a database was restored from a backup: machines made since would look like leftovers. Look at what
    the provider lists, then switch it on.
    """
    return _order("sweeping", on=switch == "on")


store.add_command(sweep)
