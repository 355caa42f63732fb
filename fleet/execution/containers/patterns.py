"""Allow lists: patterns as GitLab Runner takes them, where `*` and `?` stay between slashes and `**` does not.

Rule: an empty list allows everything; what the runner's own settings name is always allowed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable


def is_allowed(name: str, patterns: Iterable[str], configured: Iterable[str] = ()) -> bool:
    """Whether an image may be used."""
    listed = tuple(patterns)
    return not listed or name in configured or matches(name, listed)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits one of the patterns."""
    return any(_compiled(each).fullmatch(name) is not None for each in patterns)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_translated(pattern))
    except re.error:
        return re.compile(re.escape(pattern))


def _translated(pattern: str) -> str:
    found, at = "", 0
    while at < len(pattern):
        piece, at = _piece(pattern, at)
        found += piece
    return found


def _piece(pattern: str, at: int) -> tuple[str, int]:
    """The expression for what stands at a place, and where to read on."""
    if pattern.startswith("**/", at):
        return "(?:[^/]+/)*", at + 3
    if pattern.startswith("/**", at) and at + 3 == len(pattern):
        return "(?:/.*)?", at + 3
    if pattern.startswith("**", at):
        return ".*", at + 2
    sign = pattern[at]
    if sign == "*":
        return "[^/]*", at + 1
    if sign == "?":
        return "[^/]", at + 1
    if sign == "\\" and at + 1 < len(pattern):
        return re.escape(pattern[at + 1]), at + 2
    end = pattern.find("]", at + 2) if sign == "[" else pattern.find("}", at) if sign == "{" else -1
    if end == -1:
        return re.escape(sign), at + 1
    inside = pattern[at + 1 : end]
    if sign == "{":
        return "(?:" + "|".join(_translated(each) for each in inside.split(",")) + ")", end + 1
    body = ("^" + inside[1:] if inside[0] in "!^" else inside).replace("\\", "\\\\").replace("[", "\\[")
    return f"[{body}]", end + 1
