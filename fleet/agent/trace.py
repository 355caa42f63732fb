"""What a job prints, on its way to the log: UTF-8 repaired, secrets hidden, stamped, limited.

Rule: the order is repair, phrases, token prefixes, URL parameters, time stamps, limit. Masking sees the repaired
text, so no broken byte can split a secret; the stamps come after it, so no stamp can split one either; the limit
counts what is stored, stamps included. Each stream has passes of its own; the runner's own lines go through them too.
"""

from __future__ import annotations

import time

from .logfile import LogFile
from .masking import Masker
from .text import Clock, Repair, Stamper, Unstamped

RUNNER, OUTPUT, ERRORS = b"00O", b"01O", b"01E"
ERASE = "\x1b[0K"
BOLD, PLAIN = "\x1b[36;1m", "\x1b[0;m"
RED, YELLOW = "\x1b[31;1m", "\x1b[0;33m"


class Stream:
    """The passes of one stream."""

    def __init__(self, name: bytes, settings: dict, log: LogFile, clock: Clock) -> None:
        self._log = log
        self._repair = Repair()
        self._masker = Masker(
            settings.get("masks") or [], settings.get("mask_prefixes") or [], settings.get("mask_parameters") or []
        )
        self._stamper = Stamper(name, clock) if settings.get("timestamps") else Unstamped()

    @property
    def is_holding(self) -> bool:
        """Whether a line waits for its end."""
        return self._stamper.is_holding

    def write(self, data: bytes) -> None:
        """Take bytes of the stream."""
        if self._log.is_full:
            return
        data = self._masker.feed(self._repair.feed(data))
        if data:
            self._log.write(self._stamper.feed(data))

    def show(self) -> None:
        """Store the line that waits for its end: somebody may be watching."""
        self._log.write(self._stamper.show())

    def close(self) -> None:
        """Store everything held back: a stage ended."""
        tail = self._repair.flush()
        data = (self._masker.feed(tail) if tail else b"") + self._masker.flush()
        if data:
            self._log.write(self._stamper.feed(data))
        self._log.write(self._stamper.close())


class Trace:
    """The log of one job, with its three streams and its sections."""

    def __init__(self, path: str, settings: dict, now=time.time) -> None:
        self._now = now
        clock = Clock(now)
        self.log = LogFile(path, settings.get("limit_bytes"), settings.get("limit_notice") or "")
        self.has_sections = bool(settings.get("sections"))
        self.is_stamped = bool(settings.get("timestamps"))
        self._runner = Stream(RUNNER, settings, self.log, clock)
        self.output = Stream(OUTPUT, settings, self.log, clock)
        self.errors = Stream(ERRORS, settings, self.log, clock)

    @property
    def is_holding(self) -> bool:
        """Whether a line of the job waits for its end."""
        return self.output.is_holding or self.errors.is_holding

    def show(self) -> None:
        """Store lines that wait for their end."""
        self.output.show()
        self.errors.show()

    def close_streams(self) -> None:
        """A stage ended: what it printed is complete."""
        self.output.close()
        self.errors.close()

    def say(self, text: str) -> None:
        """A line of the runner's own."""
        self._runner.write(text.encode("utf-8", "replace") + b"\n")
        self._runner.close()

    def warn(self, text: str) -> None:
        """A line that asks for attention."""
        self.say(YELLOW + "WARNING: " + text + PLAIN)

    def open_section(self, name: str, title: str) -> None:
        """Begin a foldable part; GitLab shows the title."""
        if self.has_sections:
            self._mark("section_start:%d:%s\r%s%s%s%s%s\n" % (self._now(), name, ERASE, ERASE, BOLD, title, PLAIN))
        elif title:
            self.say(BOLD + title + PLAIN)

    def close_section(self, name: str) -> None:
        """End a foldable part."""
        if self.has_sections:
            self._mark("section_end:%d:%s\r%s" % (self._now(), name, ERASE))

    def _mark(self, text: str) -> None:
        self._runner.write(text.encode("utf-8", "replace"))
