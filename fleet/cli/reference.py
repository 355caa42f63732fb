"""Draws `docs/reference/cli.md` from the commands themselves, so that the page and the program cannot disagree.

`python -m fleet.cli.reference > docs/reference/cli.md` draws it anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from fleet.cli.exits import MEANINGS
from fleet.cli.invocation import shared_options
from fleet.cli.main import COMMANDS, cli

HEAD = """\
# fleetctl

<!-- Drawn from fleet/cli by `fleet.cli.reference.page`; a test keeps the two equal. -->

`fleetctl [OPTIONS] COMMAND`. Commands that look and order ask the running manager over its API; when none of this
configuration runs, they read the database and say so on standard error. Answers go to standard output, everything else
to standard error.

## Which configuration

`--config`, else `$CONFIG_FILE`, else the first that exists of `/etc/fleet/fleet.toml` and
`/etc/gitlab-runner/config.toml` (for root), or `~/.config/fleet/fleet.toml` and `~/.gitlab-runner/config.toml`.
"""
DIFFERENT = """\
## What differs from gitlab-runner

- `list` shows the first characters of tokens, not whole tokens.
- The file is edited in place: comments and order stay.
- `verify` writes the id of an entry that lacks one.
- `verify --delete` ends with 0 when what was refused has been dropped; no answer from GitLab ends with 4.
- `register` looks at the whole file with the new entry in it before GitLab hears of anything, and does not add a
  runner a second time.
- `reset-token` keeps a token that could not be saved in a file that only its owner can read.
"""
SHARED = {option for each in shared_options() for option in each.opts}


def page() -> str:
    """The whole page."""
    parts = [HEAD, _shared(), _exits()]
    for name in COMMANDS:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        parts += _command(found, f"fleetctl {name}")
    return "\n".join([*parts, DIFFERENT])


def _shared() -> str:
    lines = ["## Options of every command", "", "They may stand before the command or after it.", ""]
    return "\n".join([*lines, *_table(shared_options())]) + "\n"


def _exits() -> str:
    lines = ["## Exit codes", "", "| code | meaning |", "| --- | --- |"]
    return "\n".join(lines + [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]) + "\n"


def _command(command: click.Command, name: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _command(each, f"{name} {each.name}")
        return
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.params if isinstance(each, click.Option) and not SHARED & set(each.opts)]
    words = "".join(f" {_argument(each)}" for each in arguments)
    lines = [f"## {name}{words}", "", inspect.cleandoc(command.help or "")]
    if options:
        lines += ["", *_table(options)]
    yield "\n".join(lines) + "\n"


def _argument(argument: click.Argument) -> str:
    known = argument.type
    word = (
        "|".join(map(str, known.choices)) if isinstance(known, click.Choice) else argument.human_readable_name.upper()
    )
    return word if argument.required else f"[{word}]"


def _table(options: list[click.Option]) -> list[str]:
    lines = ["| option | environment | what |", "| --- | --- | --- |"]
    for each in options:
        names = ", ".join(f"`{name}`" for name in each.opts)
        value = "" if each.is_flag else f" {_value(each)}"
        variable = f"`{each.envvar}`" if isinstance(each.envvar, str) else ""
        lines.append(f"| {names}{value} | {variable} | {(each.help or '').replace('|', chr(92) + '|')} |")
    return lines


def _value(option: click.Option) -> str:
    known = option.type
    text = " / ".join(map(str, known.choices)) if isinstance(known, click.Choice) else option.metavar or known.name
    return text.replace("|", "/").upper() if option.metavar else text


if __name__ == "__main__":
    click.echo(page(), nl=False)
