"""Reads a stored trace as a person sees it: without time stamps, section marks and colours.

Rule: with time stamps on, a line is `<instant> <stream><O|E><space or +>text`, and `+` means that
the text belongs to the line before. Without them the trace is text already.
"""

from __future__ import annotations

import re

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [0-9a-f]{2}[OE]([ +])")
SECTION = re.compile(rb"section_(?:start|end):\d+:[^\r\n]*\r\x1b\[0K")
ESCAPE = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


def plain_trace(trace: bytes) -> str:
    """The text of a trace; what is no UTF-8 shows as the replacement character."""
    lines: list[bytes] = []
    for line in trace.split(b"\n"):
        stamp = STAMP.match(line)
        text = line if stamp is None else line[stamp.end() :]
        if stamp is not None and stamp[1] == b"+" and lines:
            lines[-1] += text
        else:
            lines.append(text)
    return _without_marks(b"\n".join(lines)).decode(errors="replace")


def output_lines(trace: bytes) -> list[str]:
    """The text by lines, without empty ones."""
    return [line.rstrip("\r") for line in plain_trace(trace).split("\n") if line.strip()]


def _without_marks(text: bytes) -> bytes:
    return ESCAPE.sub(b"", SECTION.sub(b"", text))
