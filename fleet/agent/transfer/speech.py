"""What a transfer says in the job's log: one line each, coloured like GitLab Runner's.

Rule: file names come from a job and may hold anything; what would break a line or colour a terminal is shown as `?`.
Secrets are never handed to these functions.
"""

from __future__ import annotations

import os
import re

RESET = "\x1b[0;m"
YELLOW = "\x1b[0;33m"
RED = "\x1b[31;1m"
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def say(text: str) -> None:
    """A plain line."""
    _print(shown(text))


def warn(text: str) -> None:
    """A line about something that does not fail the job."""
    _print("%sWARNING: %s%s" % (YELLOW, shown(text), RESET))


def fail(text: str) -> None:
    """A line about what fails the stage."""
    _print("%sERROR: %s%s" % (RED, shown(text), RESET))


def shown(text: str) -> str:
    """A text without control characters."""
    return _CONTROL.sub("?", text)


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return "%d B" % count if unit == "B" else "%.1f %s" % (count, unit)
        count /= 1024
    return "%.1f GiB" % count


def _print(line: str) -> None:
    data = (line + "\n").encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data) :]
