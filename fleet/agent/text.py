"""Repairs UTF-8 and puts time stamps on lines; both over a stream cut anywhere.

Rule: each piece handed on ends between two characters, so later passes may cut between pieces. The form of a stamp is
GitLab's: `2006-01-02T15:04:05.000000Z 01O text`, with `+` instead of the space before the text where a line goes on.
"""

from __future__ import annotations

import codecs
import time

LINE_HELD_BYTES = 8 * 1024


class Repair:
    """Replaces what is not UTF-8 with U+FFFD."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Valid UTF-8; the beginning of a character waits for its end."""
        if not self._tail and data.isascii():
            return data
        data = self._tail + data
        text, used = codecs.utf_8_decode(data, "replace", False)
        self._tail = data[used:]
        return text.encode()

    def flush(self) -> bytes:
        """What waited and will not be completed."""
        tail, self._tail = self._tail, b""
        return tail.decode("utf-8", "replace").encode()


class Clock:
    """The date and time of a stamp; formats a second once."""

    def __init__(self, now=time.time) -> None:
        self._now = now
        self._second = -1
        self._text = ""

    def stamp(self) -> bytes:
        """The present, as `2006-01-02T15:04:05.000000Z `."""
        second, micros = divmod(int(self._now() * 1000000), 1000000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return b"%s.%06dZ " % (self._text.encode(), micros)


class Stamper:
    """Gives each line of one stream its stamp; lines that arrive together share it."""

    def __init__(self, stream: bytes, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._line = b""  # begun, stamped, without its end
        self._flag = b" "

    @property
    def is_holding(self) -> bool:
        """Whether a line waits for its end."""
        return bool(self._line)

    def feed(self, data: bytes) -> bytes:
        """Whole lines, and of a line that is not whole what cannot wait: progress (a carriage return), a long line."""
        opening = self._clock.stamp() + self._stream
        cut = data.rfind(b"\n") + 1
        lines = b""
        if cut:
            lines = (
                (self._line or opening + self._flag) + data[: cut - 1].replace(b"\n", b"\n" + opening + b" ") + b"\n"
            )
            self._line, self._flag = b"", b" "
        if cut == len(data):
            return lines
        rest = data[cut:] if cut else data
        self._line = (self._line or opening + self._flag) + rest
        if b"\r" in rest or len(self._line) > LINE_HELD_BYTES:
            lines += self.show()
        return lines

    def show(self) -> bytes:
        """The line begun; what follows is marked as its continuation."""
        if not self._line:
            return b""
        line, self._line, self._flag = self._line + b"\n", b"", b"+"
        return line

    def close(self) -> bytes:
        """The line begun; what follows is a line of its own."""
        line = self.show()
        self._flag = b" "
        return line


class Unstamped:
    """Stands in for a Stamper where no time stamps are wanted."""

    is_holding = False

    @staticmethod
    def feed(data: bytes) -> bytes:
        """The same bytes."""
        return data

    @staticmethod
    def show() -> bytes:
        """Nothing is held."""
        return b""

    close = show
