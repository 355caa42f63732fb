r"""Writes text so that bash, dash and busybox sh read it back unchanged, and lines that people see in the log.

Rule: single quotes, or double quotes around a text that has single ones: `$'...'` is unknown to dash, and the many
pieces of `'\''` take bash five times as long to read as `"'"` does, which a variable of megabytes shows. `printf`
prints, because each shell's `echo` treats backslashes in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

RESET = "\x1b[0;m"
GREEN = "\x1b[32;1m"
YELLOW = "\x1b[0;33m"
RED = "\x1b[31;1m"
_SPECIAL = re.compile(r'[\\$`"]')  # what means something between double quotes


def quote(text: str) -> str:
    """One word of the shell that is worth exactly this text; NUL must be gone already."""
    return '"' + _SPECIAL.sub(r"\\\g<0>", text) + '"' if "'" in text else f"'{text}'"


def words(texts: Iterable[str]) -> str:
    """Several words in a row."""
    return " ".join(quote(text) for text in texts)


def say(text: str, colour: str = GREEN) -> str:
    """A command that prints one coloured line."""
    return f"printf '%s\\n' {quote(colour + text + RESET)}"
