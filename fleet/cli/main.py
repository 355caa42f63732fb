"""`fleetctl`: the command line's front door.

Rule: it imports no command before that command is called, and turns everything that goes wrong into a message and an
exit code: nobody is shown a traceback unless they asked for `--log-level debug`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click
from typing_extensions import override

from fleet import __version__
from fleet.cli.exits import Exit, exit_of
from fleet.cli.invocation import Invocation, command, invocation, shared_options
from fleet.sdk import FleetError

# name -> (where it is, what it does)
COMMANDS = {
    "up": ("fleet.cli.main:up_command", "Run the manager."),
    "status": ("fleet.cli.reading:status", "Say how the manager and its pools are."),
    "pools": ("fleet.cli.reading:pools", "List the pools."),
    "instances": ("fleet.cli.reading:instances", "List the instances."),
    "jobs": ("fleet.cli.reading:jobs", "List the jobs."),
    "runners": ("fleet.cli.reading:runners", "List the runners."),
    "managers": ("fleet.cli.reading:managers", "List the managers that share the store."),
    "placements": ("fleet.cli.reading:placements", "List where machines are made, and what is cooling down."),
    "plan": ("fleet.cli.reading:plan", "Show what was planned last, with reasons."),
    "explain": ("fleet.cli.explaining:explain", "Say why a job waits, or what became of a machine."),
    "attach": ("fleet.cli.attaching:attach", "Follow a running job's log, or open a shell beside it."),
    "drain": ("fleet.cli.acting:drain", "Give an instance no more jobs."),
    "undrain": ("fleet.cli.acting:undrain", "Give a draining instance jobs again."),
    "remove": ("fleet.cli.acting:remove", "Delete an instance's machine."),
    "reload": ("fleet.cli.acting:reload", "Make the manager read its configuration again."),
    "check": ("fleet.cli.checking:check", "Try everything the manager needs, and say what is missing."),
    "config": ("fleet.cli.configuration:config", "Check and show the configuration."),
    "db": ("fleet.cli.database:db", "Look after the database and its secret key."),
    "store": ("fleet.cli.acting:store", "Decide what may be done with the store's machines."),
    "register": ("fleet.cli.registering:register", "Add a runner to the configuration."),
    "verify": ("fleet.cli.verifying:verify", "Ask GitLab whether the runners' tokens are good."),
    "unregister": ("fleet.cli.unregistering:unregister", "Tell GitLab that a runner is no more, and drop its entry."),
    "reset-token": ("fleet.cli.resetting:reset_token", "Get a new token for a runner, and save it."),
    "list": ("fleet.cli.verifying:list_entries", "List the runners of the configuration."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module, _, attribute = found[0].partition(":")
        made: click.Command = getattr(importlib.import_module(module), attribute)
        return made

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[*shared_options()],
)
@click.version_option(__version__, "-v", "--version", prog_name="fleetctl")
def cli() -> None:
    """An autoscaling manager for GitLab CI jobs."""


@command("up")
@click.option("--demo", is_flag=True, help="Run a sample pipeline on this host against a pretend GitLab.")
@click.option(
    "--on-term",
    type=click.Choice(["leave", "abort", "drain"]),
    help="What SIGTERM and SIGINT do with running jobs; beats [fleet] on_term.",
)
@click.option("--listen-address", metavar="HOST:PORT", help="Where /metrics and /health are served.")
@click.option("--database", metavar="URL", help="Where the state is; beats $FLEET_DATABASE and [fleet] database.")
@click.option("--state-dir", metavar="DIR", help="Beats $FLEET_STATE_DIR and [fleet] state_dir.")
def up_command(
    demo: bool, on_term: str | None, listen_address: str | None, database: str | None, state_dir: str | None
) -> int:
    """Run the manager until a signal ends it.

    SIGTERM and SIGINT stop it at once and leave running jobs for the next start; SIGQUIT takes no more jobs and waits
    for those that run; SIGHUP reads the configuration again.
    """
    up: Any = importlib.import_module("fleet.cli.up").up
    asked = invocation()
    path: pathlib.Path | None = (
        None if demo and asked.config is None else importlib.import_module("fleet.cli.files").path_of(asked)
    )
    code = up(
        path,
        demo=demo,
        on_term=on_term,
        listen_address=listen_address,
        log_level=asked.log_level,
        log_format=asked.log_format,
        database=database,
        state_dir=state_dir,
    )
    return int(code or 0)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; returns the exit code."""
    asked = Invocation()
    try:
        # not cli.main(), which would end the program by itself when who reads the output goes away
        with cli.make_context("fleetctl", list(arguments), obj=asked) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except FleetError as exc:
        _say_error(str(exc), exc, asked)
        return exit_of(exc)
    except (KeyboardInterrupt, EOFError, click.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # what Python would flush at its end goes nowhere, and says nothing
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except Exception as exc:  # noqa: BLE001  the last boundary: a person is told what happened, not where in our code
        _say_error(f"fleetctl met something it does not know: {type(exc).__name__}: {exc}", exc, asked)
        return Exit.NEGATIVE


def _say_error(message: str, error: Exception, asked: Invocation) -> None:
    click.echo(f"fleetctl: {message}", err=True)
    if asked.log_level in {"debug", "trace"}:
        traceback.print_exception(error)


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
