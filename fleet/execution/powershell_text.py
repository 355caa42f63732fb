"""Writes text so that PowerShell (5.1 and later) reads it back unchanged, and what people see in the log.

Rule: single quotes, in which nothing is expanded. PowerShell takes the typographic quotes for single ones, too, so each
of the five is doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fleet.execution.shell_text import GREEN, RESET

QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")
CHECK = "if (-not $?) { exit $(if ($LASTEXITCODE) { $LASTEXITCODE } else { 1 }) }"


def quote(text: str) -> str:
    """One word that is worth exactly this text."""
    return "'" + QUOTES.sub(r"\g<0>\g<0>", text) + "'"


def call(program: str, arguments: Iterable[str]) -> list[str]:
    """Run a program of the machine; the job ends when it fails."""
    return [f"& {quote(program)} {' '.join(quote(each) for each in arguments)}".rstrip(), CHECK]


def say(text: str, colour: str = GREEN) -> str:
    """Print one coloured line."""
    return f"Write-Output {quote(colour + text + RESET)}"


def remove(path: str) -> str:
    """Remove a file or a tree; what is absent is fine."""
    at = quote(path)
    return f"if (Test-Path -LiteralPath {at}) {{ Remove-Item -LiteralPath {at} -Recurse -Force }}"


def make(folder: str) -> str:
    """Make a folder and those above it; one that is there is fine."""
    return f"New-Item -ItemType Directory -Force -Path {escaped(folder)} | Out-Null"


def escaped(path: str) -> str:
    """A path for a parameter that knows wildcards."""
    return quote(re.sub(r"([`\[\]*?])", r"`\1", path))


def enter(folder: str) -> str:
    """Go into a folder, for PowerShell and for what .NET starts."""
    return f"Set-Location -LiteralPath {quote(folder)}"
