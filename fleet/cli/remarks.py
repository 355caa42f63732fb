"""What the program's own log says during a command: warnings, on standard error, unless more is asked for."""

from __future__ import annotations

import sys

from fleet.cli.exits import Misused
from fleet.cli.invocation import Invocation
from fleet.runtime.logs import configure
from fleet.settings.manager import LogFormat, LogLevel, log_level


def to_standard_error(asked: Invocation) -> None:
    """Keep standard output for the answer."""
    given = asked.log_level or asked.env.get("LOG_LEVEL")
    form = asked.log_format or asked.env.get("LOG_FORMAT")
    try:
        level = log_level(given) if given else LogLevel.WARNING
        configure(level, LogFormat(form) if form else LogFormat.RUNNER, sys.stderr)
    except ValueError as exc:
        raise Misused(f"$LOG_LEVEL or $LOG_FORMAT {exc}") from exc
