"""Where each key stands in a TOML text: lines for messages, spans for changing a value in place.

`tomllib` and `tomlkit` keep no positions, and `tomlkit` moves tables that stand between two `[[runners]]` when it
writes them back. So this scanner walks the text once and notes, for each path such as `("runners", 0, "token")`,
where the key and its value stand. Rule: the text has been accepted by `tomllib` before; this is no validator.
"""

from __future__ import annotations

import bisect
import tomllib
from dataclasses import dataclass, field

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Offsets into the text, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One `[table]` or `[[table]]` line: the path it opens and where the line's bracket stands."""

    path: Path
    span: Span


@dataclass(frozen=True, slots=True)
class Positions:
    """Keys, values and headers of one text."""

    keys: dict[Path, int] = field(default_factory=dict)
    values: dict[Path, Span] = field(default_factory=dict)
    headers: list[Header] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def line_at(self, offset: int) -> int:
        """The line of an offset, counted from 1."""
        return bisect.bisect_right(self.starts, offset)

    def line(self, path: Path) -> int | None:
        """The line of a key, or of the nearest table around it; None when nothing of it stands in the text."""
        for length in range(len(path), 0, -1):
            offset = self.keys.get(path[:length])
            if offset is not None:
                return self.line_at(offset)
        return None


def scan(text: str) -> Positions:
    """Note where everything stands in a valid TOML text."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.arrays: dict[Path, int] = {}
        self.found = Positions(starts=[0] + [i + 1 for i, char in enumerate(text) if char == "\n"])

    def document(self) -> None:
        table: Path = ()
        while self.skip("\ufeff \t\r\n"):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def skip(self, blanks: str) -> bool:
        """Pass blanks and comments; False at the end of the text."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "#":
                self.to_line_end()
            elif char in blanks:
                self.at += 1
            else:
                return True
        return False

    def to_line_end(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def header(self) -> Path:
        start = self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        keys = self.dotted_key()
        path: Path = ()
        for number, key in enumerate(keys):
            path += (key,)
            if is_array and number == len(keys) - 1:
                self.found.keys.setdefault(path, start)
                self.arrays[path] = self.arrays.get(path, 0) + 1
            if path in self.arrays:
                path += (self.arrays[path] - 1,)
        self.skip(" \t")
        self.at += 2 if is_array else 1
        self.found.keys.setdefault(path, start)
        self.found.headers.append(Header(path=path, span=Span(start=start, end=self.at)))
        return path

    def pair(self, table: Path) -> None:
        start = self.at
        path = table
        for key in self.dotted_key():
            path += (key,)
            self.found.keys.setdefault(path, start)
        self.skip(" \t")
        self.at += 1  # the equals sign
        self.skip(" \t")
        self.value(path)

    def dotted_key(self) -> list[str]:
        keys = []
        while True:
            self.skip(" \t")
            keys.append(self.simple_key())
            self.skip(" \t")
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def simple_key(self) -> str:
        start = self.at
        if self.text[self.at] in "\"'":
            self.string()
            return next(iter(tomllib.loads(self.text[start : self.at] + "=0")))
        while self.text[self.at] not in ".=] \t\r\n":
            self.at += 1
        return self.text[start : self.at]

    def value(self, path: Path) -> None:
        start = self.at
        char = self.text[self.at]
        if char in "\"'":
            self.string()
        elif char == "[":
            self.array(path)
        elif char == "{":
            self.inline_table(path)
        else:
            self.scalar()
        self.found.values[path] = Span(start=start, end=self.at)

    def scalar(self) -> None:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ",]}#\r\n":
            self.at += 1
        self.at = start + len(self.text[start : self.at].rstrip())

    def string(self) -> None:
        quote = self.text[self.at]
        fence = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(fence)
        while not self.text.startswith(fence, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(fence)
        if len(fence) == 3:  # up to two quotes may stand before the closing fence
            for _ in range(2):
                self.at += self.text.startswith(quote, self.at)

    def array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while self.skip(" \t\r\n,") and self.text[self.at] != "]":
            element = (*path, number)
            self.found.keys.setdefault(element, self.at)
            self.value(element)
            number += 1
        self.at += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        while self.skip(" \t\r\n,") and self.text[self.at] != "}":
            self.pair(path)
        self.at += 1
