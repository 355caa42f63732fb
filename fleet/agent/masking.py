"""Hides secrets in a stream of bytes, across any border of chunks.

Three passes in this order: literal phrases, token prefixes, URL parameters. Rule: what comes out does not depend on how
the stream was cut, memory stays within the longest phrase, time is linear in the bytes. Each pass holds back only what
may still become a secret. Every byte that belongs to an occurrence of a phrase is hidden, also where occurrences
overlap: replacing the longest first, one after the other, would show the rest of the shorter one.
"""

from __future__ import annotations

import re

MASK = b"[MASKED]"
TOKEN_BYTES = rb"(?:[0-9A-Za-z\-._=]+|\[MASKED\])+"
VALUE_BYTES = rb"[^\s&#\"'<>\\\x00-\x20\x7f]+"
PATTERNS_KEPT = 64


class Phrases:
    """Replaces literal phrases; a run of overlapping occurrences becomes one mark."""

    def __init__(self, phrases: list) -> None:
        self._phrases = sorted({phrase for phrase in phrases if phrase}, key=len, reverse=True)
        self._held = b""
        self._covered = 0  # so many bytes at the start of what is held belong to a run that is already marked
        self._patterns = {}
        self._overlaps = {}

    def feed(self, data: bytes) -> bytes:
        """What is certain by now, hidden where it must be."""
        buffer = self._held + data if self._held else data
        safe = self._safe_end(buffer)
        self._held = buffer[safe:]
        return self._hidden(buffer, safe)

    def flush(self) -> bytes:
        """What was held back: the stream pauses; a beginning of a phrase is none, but a short phrase may be in it."""
        held, self._held = self._held, b""
        hidden = self._hidden(held, len(held))
        self._covered = 0
        return hidden

    def _hidden(self, buffer: bytes, safe: int) -> bytes:
        """The first `safe` bytes, with each phrase that begins among them hidden."""
        present = tuple(phrase for phrase in self._phrases if phrase in buffer)
        if not present:
            hidden = buffer[self._covered : safe]
            self._covered = max(0, self._covered - safe)
        elif self._covered or any(self._overlaps_of(phrase) for phrase in present):
            hidden = self._hide_runs(buffer, present, safe)
        else:
            hidden = self._hide(buffer[:safe], present)
        return hidden

    def _safe_end(self, buffer: bytes) -> int:
        """Where the first phrase may begin that is not complete yet."""
        safe = len(buffer)
        for phrase in self._phrases:
            start = first_tail(buffer, phrase)
            safe = min(safe, start)
        return safe

    def _hide(self, data: bytes, present: tuple) -> bytes:
        if len(present) == 1:
            return data.replace(present[0], MASK)
        return self._pattern(present).sub(MASK, data)

    def _hide_runs(self, buffer: bytes, present: tuple, safe: int) -> bytes:
        pattern = self._pattern(present)
        pieces = []
        shown = self._run_end(pattern, buffer, self._covered, safe, list(range(self._covered)))
        while True:
            found = pattern.search(buffer, shown)
            if found is None or found.start() >= safe:
                break
            pieces += (buffer[shown : found.start()], MASK)
            inside = [found.start() + offset for offset in self._overlaps_of(found.group())]
            shown = self._run_end(pattern, buffer, found.end(), safe, inside)
        if shown < safe:
            pieces.append(buffer[shown:safe])
        self._covered = max(0, shown - safe)
        return b"".join(pieces)

    def _run_end(self, pattern, buffer: bytes, end: int, safe: int, candidates: list) -> int:
        """Where the run ends that covers up to `end`: occurrences that begin inside it make it longer.

        Candidates are in rising order and the last is tried first, because it reaches furthest; none from which the
        longest phrase cannot get past the end is tried at all. So a long run of equal bytes stays cheap.
        """
        reach = len(self._phrases[0])
        while candidates and candidates[-1] + reach > end:
            at = candidates.pop()
            found = pattern.match(buffer, at) if at < safe else None
            if found is not None and found.end() > end:
                candidates += range(end, min(found.end(), safe))
                end = found.end()
        return end

    def _pattern(self, present: tuple):
        if present not in self._patterns:
            if len(self._patterns) >= PATTERNS_KEPT:
                self._patterns.clear()
            self._patterns[present] = re.compile(b"|".join(map(re.escape, present)))
        return self._patterns[present]

    def _overlaps_of(self, phrase: bytes) -> tuple:
        """Offsets in a phrase at which its end could be the beginning of a phrase."""
        if phrase not in self._overlaps:
            offsets = {at for other in self._phrases for at in tails(phrase[1:], other)}
            self._overlaps[phrase] = tuple(sorted(at + 1 for at in offsets))
        return self._overlaps[phrase]


def tails(text: bytes, phrase: bytes):
    """Each position from which the rest of the text is the beginning, but not all, of the phrase."""
    at = max(0, len(text) - len(phrase) + 1)
    while True:
        at = text.find(phrase[:1], at)
        if at < 0:
            return
        if phrase.startswith(text[at:]):
            yield at
        at += 1


def first_tail(text: bytes, phrase: bytes) -> int:
    """The first of `tails`, or the length of the text."""
    at = max(0, len(text) - len(phrase) + 1)
    opening = phrase[:2]
    while True:
        at = text.find(opening, at)
        if at < 0:
            break
        if phrase.startswith(text[at:]):
            return at
        at += 1
    if len(phrase) > 1 and text.endswith(opening[:1]):
        return len(text) - 1
    return len(text)


class Openers:
    """Keeps what opens a secret, such as `glpat-` or `?private_token=`, and hides the value after it."""

    def __init__(self, openers: list, value: bytes, *, ignore_case: bool = False) -> None:
        self._lower = ignore_case
        self._openers = sorted({o.lower() if ignore_case else o for o in openers if o}, key=len, reverse=True)
        marked = [opener + MASK.lower() if ignore_case else opener + MASK for opener in self._openers]
        self._prefixes = frozenset(text[:n] for text in marked for n in range(1, len(text)))
        self._longest = max(map(len, marked), default=0)
        self._families = {}  # by bytes they have in common, so that one plain search excludes many
        for opener in self._openers:
            common, rest = (b"=", opener[1:]) if ignore_case else (opener[:2], opener)
            self._families.setdefault(common, set()).add(rest)
        flags = re.IGNORECASE if ignore_case else 0
        self._pattern = re.compile(b"(" + b"|".join(map(re.escape, self._openers)) + b")" + value, flags)
        self._value = re.compile(value)
        self._held = b""
        self._inside = False  # the value of the last opener may go on

    def feed(self, data: bytes) -> bytes:
        """What is certain by now, hidden where it must be."""
        buffer = self._held + data if self._held else data
        at = self._past_value(buffer, 0) if self._inside else 0
        pieces = []
        found = None if self._inside or not self._may_hold_opener(buffer) else self._pattern.search(buffer, at)
        while found is not None:
            pieces += (buffer[at : found.end(1)], MASK)
            at = self._past_value(buffer, found.end())
            found = None if self._inside else self._pattern.search(buffer, at)
        end = at if self._inside else max(at, len(buffer) - self._held_length(buffer))
        self._held = buffer[end:]
        pieces.append(buffer[at:end])
        return b"".join(pieces)

    def flush(self) -> bytes:
        """What was held back; the stream pauses here."""
        held, self._held, self._inside = self._held, b"", False
        return held

    def _past_value(self, buffer: bytes, at: int) -> int:
        """Skip the rest of a value; note whether it may go on in bytes to come."""
        found = self._value.match(buffer, at)
        end = found.end() if found else at
        rest = buffer[end : end + len(MASK)]
        self._inside = end == len(buffer) or (len(rest) < len(MASK) and MASK.startswith(rest))
        return end

    def _may_hold_opener(self, buffer: bytes) -> bool:
        """A quick no for most output: plain searches cost a tenth of the pattern."""
        if self._lower:
            buffer = buffer.lower()
        return any(
            common in buffer and any(rest in buffer for rest in family) for common, family in self._families.items()
        )

    def _held_length(self, buffer: bytes) -> int:
        tail = buffer[-self._longest :]
        if self._lower:
            tail = tail.lower()
        for start in range(len(tail)):
            if tail[start:] in self._prefixes:
                return len(tail) - start
        return 0


class Masker:
    """All passes over one stream."""

    def __init__(self, phrases: list, prefixes: list, parameters: list) -> None:
        openers = [mark + name.encode() + b"=" for name in parameters for mark in (b"?", b"&")]
        self._passes = []
        if any(phrases):
            self._passes.append(Phrases([phrase.encode("utf-8", "replace") for phrase in phrases]))
        if any(prefixes):
            self._passes.append(Openers([prefix.encode() for prefix in prefixes], TOKEN_BYTES))
        if openers:
            self._passes.append(Openers(openers, VALUE_BYTES, ignore_case=True))

    def feed(self, data: bytes) -> bytes:
        """What is certain by now."""
        for one in self._passes:
            data = one.feed(data)
        return data

    def flush(self) -> bytes:
        """The rest: no more comes, for now."""
        data = b""
        for one in self._passes:
            data = (one.feed(data) if data else b"") + one.flush()
        return data
