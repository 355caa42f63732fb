r"""Patterns of `paths` and `exclude`, matched as GitLab Runner's doublestar matches them.

    *       any characters but /            ?        one of them
    **      as a whole part: any number of folders, also none; at the end also all that is below
    [a-z]   one of these, [^a-z] and [!a-z] any other        {a,b/c}  one of these patterns
    \x      x itself

Rule: a leading dot is nothing special, upper and lower case differ, and a pattern that cannot be read is a
`PatternError`, never a pattern that matches nothing. Links are followed where a part names or matches one, not by `**`.
"""

from __future__ import annotations

import re

from .tree import FOLDER, LINK, Entry

DOUBLE = "**"
MOST_ALTERNATIVES = 10_000
WILD = frozenset("*?[")
ANY = "[^/]*"


class PatternError(ValueError):
    """A pattern that cannot be read."""


class Pattern:
    """One pattern, ready to match whole paths and to find entries."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ways = [_parts(way) for way in alternatives(text)]
        self._whole = re.compile("|".join(_expression(parts) for parts in self._ways), re.DOTALL)

    def matches(self, path: str) -> bool:
        """Whether a whole path (no slash at either end) is meant."""
        return self._whole.fullmatch(path) is not None

    def find(self, tree):
        """The entries of a tree that it names, some perhaps twice; what is below a folder is for the caller."""
        for parts in self._ways:
            yield from _find(tree, "", parts)


class Part:
    """One part of a pattern: a plain name, or an expression."""

    def __init__(self, text: str) -> None:
        self.expression, self.name = _translate(text)
        self._match = None if self.name is not None else re.compile(self.expression, re.DOTALL).fullmatch

    def suits(self, name: str) -> bool:
        """Whether a name is meant."""
        return self._match(name) is not None


def below(tree, entry: Entry):
    """An entry and, without following links, everything below it; folders before what they hold."""
    waiting = [entry]
    while waiting:
        entry = waiting.pop()
        yield entry
        if entry.kind == FOLDER:
            waiting += reversed(tree.children(entry.path))


def alternatives(text: str) -> list:
    """A pattern without its braces, as often as they ask for."""
    done, waiting = [], [text]
    while waiting:
        if len(done) + len(waiting) > MOST_ALTERNATIVES:
            raise PatternError("more than %d alternatives" % MOST_ALTERNATIVES)
        pattern = waiting.pop()
        found = _braces(pattern)
        if found is None:
            done.append(pattern)
            continue
        begin, commas, end = found
        edges = [begin, *commas, end]
        choices = [pattern[left + 1 : right] for left, right in zip(edges, edges[1:])]  # noqa: B905, RUF007  Python 3.8 has neither
        waiting += [pattern[:begin] + choice + pattern[end + 1 :] for choice in reversed(choices)]
    return done


def _braces(pattern: str) -> tuple | None:
    """Where the first braces begin, part and end."""
    begin, commas, depth, at = -1, [], 0, 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            at += 1
        elif sign == "[":
            at = _class_end(pattern, at)
        elif sign == "{":
            depth += 1
            begin = at if depth == 1 else begin
        elif sign == "," and depth == 1:
            commas.append(at)
        elif sign == "}" and depth:
            depth -= 1
            if depth == 0:
                return begin, commas, at
        at += 1
    if depth:
        raise PatternError("a brace is not closed")
    return None


def _class_end(pattern: str, at: int) -> int:
    """Where a class ends that begins here; its first sign may be a bracket only if it is escaped."""
    at += 1
    begin = at + (pattern[at : at + 1] in {"^", "!"})
    at = begin
    while at < len(pattern) and (pattern[at] != "]" or at == begin):
        at += 2 if pattern[at] == "\\" else 1
    if at >= len(pattern):
        raise PatternError("a bracket is not closed")
    return at


def _parts(pattern: str) -> list:
    """The parts of a pattern without braces; neighbouring `**` are one."""
    parts = []
    for text in _split(pattern):
        if text == DOUBLE:
            if not parts or parts[-1] != DOUBLE:
                parts.append(DOUBLE)
        elif text:
            parts.append(Part(text))
    return parts


def _split(pattern: str) -> list:
    """Cut at slashes; one inside a class is no cut, and matches nothing."""
    pieces, begin, at = [], 0, 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            at += 1
        elif sign == "[":
            at = _class_end(pattern, at)
        elif sign == "/":
            pieces.append(pattern[begin:at])
            begin = at + 1
        at += 1
    return [*pieces, pattern[begin:]]


def _translate(text: str) -> tuple:
    """A part as an expression, and as a plain name if it is one."""
    out, plain, at = [], [], 0
    while at < len(text):
        sign, escaped = text[at], text[at] == "\\"
        if escaped:
            at += 1
            if at == len(text):
                raise PatternError("it ends with a backslash")
            sign = text[at]
        if escaped or sign not in WILD:
            out.append(re.escape(sign))
            plain = None if plain is None else [*plain, sign]
            at += 1
            continue
        plain = None
        if sign == "[":
            end = _class_end(text, at)
            out.append(_class(text[at + 1 : end]))
            at = end
        elif sign == "?":
            out.append("[^/]")
        elif not out or out[-1] != ANY:
            out.append(ANY)
        at += 1
    return "".join(out), None if plain is None else "".join(plain)


def _class(inside: str) -> str:
    if inside[:1] in {"^", "!"}:
        return "[^/" + _members(inside[1:]) + "]"
    return "(?!/)[" + _members(inside) + "]"


def _members(inside: str) -> str:
    """The members of a class, escaped; `a-z` stays a range."""
    signs, at = [], 0
    while at < len(inside):
        escaped = inside[at] == "\\" and at + 1 < len(inside)
        at += escaped
        signs.append("-" if inside[at] == "-" and not escaped and 0 < at < len(inside) - 1 else re.escape(inside[at]))
        at += 1
    text = "".join(signs)
    try:
        re.compile("[" + text + "]")
    except re.error as exc:
        raise PatternError("a range in brackets is the wrong way round") from exc
    return text


def _expression(parts: list) -> str:
    """Parts as an expression for a whole path."""
    if parts == [DOUBLE]:
        return ".*"
    out = []
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part != DOUBLE:
            out.append(part.expression + ("" if is_last else "/"))
        elif not is_last:
            out.append("(?:[^/]+/)*")
        else:
            out[-1] = out[-1][:-1]  # the folder itself is meant, too
            out.append("(?:/.*)?")
    return "(?:" + "".join(out) + ")"


def _find(tree, base: str, parts: list):
    if not parts:
        entry = tree.entry(base)
        if entry is not None:
            yield entry
        return
    first, rest = parts[0], parts[1:]
    if first == DOUBLE:
        yield from _find_below(tree, base, rest)
    elif first.name is not None:
        yield from _find(tree, base + "/" + first.name if base else first.name, rest)
    else:
        for entry in tree.children(base):
            if not first.suits(entry.path.rpartition("/")[2]):
                continue
            if not rest:
                yield entry
            elif entry.kind in {FOLDER, LINK}:
                yield from _find(tree, entry.path, rest)


def _find_below(tree, base: str, rest: list):
    """What matches the rest of a pattern in a folder or in any below it."""
    top = tree.entry(base)
    if top is None:
        return
    for entry in below(tree, top):
        if not rest:
            yield entry
        elif entry.kind == FOLDER or entry is top:
            yield from _find(tree, entry.path, rest)
