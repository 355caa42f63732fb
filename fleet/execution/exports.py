"""Turns variables into what a shell gets at the start of a stage, and into files.

Rule: every variable is usable in expansion; not every one can be an environment variable. What cannot is named in a
warning, once, and the job goes on:

- names that no shell takes (with a dash, say) are left out;
- names that bash keeps read-only are left out, because to set them ends the shell;
- the kernel takes at most 128 KiB per variable and about 2 MiB for all: what is larger is set in the shell and not
  given to programs, for else not one program of the job could be started.

CI_JOB_STATUS is left out in silence: the agent sets it for each stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.execution.layout import OWN_FILES
from fleet.execution.shell_text import quote
from fleet.execution.variables import Variable, Variables

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
READ_ONLY = frozenset(("UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "OPTIND"))
ONE_LIMIT_BYTES = 128 << 10  # the kernel's MAX_ARG_STRLEN
ALL_LIMIT_BYTES = 1536 << 10  # below the kernel's 2 MiB, so that arguments have room
FILE_MODE = 0o600


@dataclass(slots=True, kw_only=True)
class Word:
    """One variable on its way into the shell."""

    key: str
    value: str = field(repr=False)
    masked: bool
    size_bytes: int
    is_exported: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """The variables for the shell, and files."""

    words: tuple[Word, ...] = field(repr=False)
    files: tuple[tuple[str, str], ...] = field(repr=False)  # (path, content)
    warnings: tuple[str, ...]

    @property
    def masked_lines(self) -> str:
        """Lines of sh for those with secrets, which are apart so that they are never traced."""
        return _lines(word for word in self.words if word.masked)

    @property
    def open_lines(self) -> str:
        """Lines of sh for the others."""
        return _lines(word for word in self.words if not word.masked)


def exports_of(variables: Variables, expanded: Iterable[Variable]) -> Exports:
    """What the shell gets for these variables, given their final values."""
    warnings: list[str] = []
    files: list[tuple[str, str]] = []
    found: list[Word] = []
    for variable in expanded:
        value = variable.value
        if variable.file:
            if not _is_file_name(variable.key):
                warnings.append(f"file variable {variable.key!r} is left out: its name cannot be that of a file")
                continue
            value = variables.path_of(variable.key)
            files.append((value, variable.value))
        if variable.key != "CI_JOB_STATUS" and _is_settable(variable, warnings):
            size = len(variable.key) + len(value.encode("utf-8")) + 10  # =, NUL and a pointer
            is_secret = variable.masked and not variable.file
            found.append(Word(key=variable.key, value=value, masked=is_secret, size_bytes=size))
    warnings += _keep_within_kernel_limits(found)
    return Exports(
        words=tuple(found),
        files=tuple(files),
        warnings=tuple(warnings),
    )


def _is_settable(variable: Variable, warnings: list[str]) -> bool:
    key = variable.key
    if not NAME.fullmatch(key):
        warnings.append(
            f"variable {key!r} is not in the environment of the scripts: a shell takes letters, digits and _ in names"
        )
        return False
    if key in READ_ONLY:
        warnings.append(f"variable {key} is not in the environment of the scripts: the shell keeps that name to itself")
        return False
    return True


def _is_file_name(key: str) -> bool:
    return bool(key) and "/" not in key and key not in {".", "..", OWN_FILES} and len(key.encode("utf-8")) <= 255


def _keep_within_kernel_limits(found: list[Word]) -> list[str]:
    """Mark what programs cannot get; the largest go first, so that as few as possible go."""
    total = sum(word.size_bytes for word in found)
    left_out = []
    for word in sorted(found, key=lambda word: word.size_bytes, reverse=True):
        if word.size_bytes <= ONE_LIMIT_BYTES and total <= ALL_LIMIT_BYTES:
            break
        word.is_exported = False
        total -= word.size_bytes
        left_out.append(word)
    if not left_out:
        return []
    names = ", ".join(f"{word.key} ({word.size_bytes >> 10} KiB)" for word in left_out[:10])
    more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
    advice = "the script can use them, programs cannot see them: make them file variables"
    return [f"too large for the environment of programs: {names}{more}; {advice}"]


def _lines(found: Iterable[Word]) -> str:
    return "".join(f"{'export ' if word.is_exported else ''}{word.key}={quote(word.value)}\n" for word in found)
