"""Puts the values of variables into a text: `$NAME`, `${NAME}`, `%NAME%`, and `$$` for a dollar sign.

Rule: one pass. What was put in is not looked at again, so no chain and no cycle can arise; an unknown `$NAME` is
nothing, an unknown `%NAME%` stays, because `date +%Y%m%d` is not about variables. Time is linear in what goes in and
comes out, and what comes out is bounded: a few hundred kilobytes of references could else stand for terabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_REFERENCE = re.compile(
    r"""\$ (?: (?P<dollar>\$) | \{ (?P<braced>[^{}$]*) \} | (?P<special>[*\#@!?0-9-])
             | (?P<bare>[A-Za-z_][A-Za-z0-9_]*) )
      | % (?P<percent>[A-Za-z_][A-Za-z0-9_]*) %""",
    re.VERBOSE,
)

Lookup = Callable[[str], str | None]


class ExpansionTooLarge(Exception):
    """The text would be larger than allowed."""


def expand(text: str, lookup: Lookup, *, limit: int) -> str:
    """The text with every reference replaced by what `lookup` knows, at most `limit` characters."""
    if "$" not in text and "%" not in text:
        return text
    pieces: list[str] = []
    size = at = 0
    while match := _REFERENCE.search(text, at):
        piece, end = _replaced(match, lookup)
        pieces += (text[at : match.start()], piece)
        size += match.start() - at + len(piece)
        if size > limit:
            raise ExpansionTooLarge
        at = end
    pieces.append(text[at:])
    return "".join(pieces)


def _replaced(match: re.Match[str], lookup: Lookup) -> tuple[str, int]:
    """What stands for one reference, and where to read on."""
    if match["dollar"]:
        return "$", match.end()
    name = match["percent"]
    if name is not None:
        value = lookup(name)
        # the second % may open another reference
        return (f"%{name}", match.end() - 1) if value is None else (value, match.end())
    name = match["braced"] if match["braced"] is not None else match["bare"]
    return (lookup(name) or "" if name else ""), match.end()
