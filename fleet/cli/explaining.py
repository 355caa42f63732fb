"""`fleetctl explain`: why a job waits, what became of a machine, from the plan and the journal."""

from __future__ import annotations

import click

from fleet.cli.asking import source
from fleet.cli.exits import Exit
from fleet.cli.invocation import command, invocation


@command("explain")
@click.argument("name", metavar="JOB-OR-INSTANCE")
def explain(name: str) -> int:
    """Say why a job waits, or what became of a machine.

    A job is named by GitLab's number, our key, or its lease; a machine by our id or the provider's. Pools, runners and
    requests have a story too. Ends with 1 when nothing has this name.
    """
    asked = invocation()
    with source(asked) as found:
        said = found.explain(name)
    if asked.printer.as_json:
        asked.printer.value(said)
        return Exit.OK
    for sentence in said["answer"]:
        click.echo(sentence[:1].upper() + sentence[1:])
    if said["story"]:
        click.echo("")
    for line in said["story"]:
        click.echo(f"{line['at'][:19].replace('T', ' ')}  {line['sentence']}")
    return Exit.OK
