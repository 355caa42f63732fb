"""One call of `fleetctl`: what all commands share, which file they read, and how they print.

Rule: nothing heavy is imported here at the top, so that `fleetctl --help` is quick. Options that every command has may
stand before or after its name; the later one wins.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
from typing_extensions import override

from fleet.cli.printing import Printer


@dataclass(slots=True, kw_only=True)
class Invocation:
    """What was said once for the whole command line.

    Attributes:
        config: `--config`; None when it was not given.
        output: `table` or `json`.
    """

    config: str | None = None
    output: str = "table"
    log_level: str | None = None
    log_format: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def printer(self) -> Printer:
        """How to print."""
        return Printer(as_json=self.output == "json")


def _kept(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def keep(ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        if value is not None:
            setattr(ctx.ensure_object(Invocation), name, value)
        return value

    return keep


def shared_options() -> list[click.Option]:
    """The options that may stand before and after a command's name."""
    return [
        click.Option(
            ["-c", "--config"],
            metavar="FILE",
            help="Configuration file; without it $CONFIG_FILE, then the first that exists of the usual places.",
            expose_value=False,
            callback=_kept("config"),
        ),
        click.Option(
            ["--output"],
            type=click.Choice(["table", "json"]),
            help="For people or for programs.",
            expose_value=False,
            callback=_kept("output"),
        ),
        click.Option(
            ["-l", "--log-level"],
            type=click.Choice(["trace", "debug", "info", "warning", "error"], case_sensitive=False),
            help="How much is logged; beats $LOG_LEVEL and the file.",
            expose_value=False,
            callback=_kept("log_level"),
        ),
        click.Option(
            ["--log-format"],
            type=click.Choice(["runner", "text", "json"]),
            help="How it is logged; beats $LOG_FORMAT and the file.",
            expose_value=False,
            callback=_kept("log_format"),
        ),
    ]


class Command(click.Command):
    """A command with the shared options after its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {opt for param in self.params for opt in param.opts}
        self.params += [each for each in shared_options() if not taken & set(each.opts)]

    @override
    def invoke(self, ctx: click.Context) -> Any:
        asked = ctx.ensure_object(Invocation)
        if self.name != "up":  # which configures its log by its own settings
            logs = importlib.import_module("fleet.cli.remarks")
            logs.to_standard_error(asked)
        return super().invoke(ctx)


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """Makes a function a command; its docstring is the help."""
    return click.command(name, cls=Command, context_settings={"max_content_width": 100})


def invocation() -> Invocation:
    """The call that is under way."""
    return click.get_current_context().ensure_object(Invocation)
