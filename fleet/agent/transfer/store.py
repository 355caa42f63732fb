"""One object in a store of caches, by signed addresses: downloads it if it is newer, uploads it.

Rule: a store that fails (5xx, no connection) is tried three times, a second apart; what it refuses is final. No
address is ever shown: it is a secret.
"""

from __future__ import annotations

import contextlib
import time
from email.utils import mktime_tz, parsedate_tz

from .http import Answered, Client, HttpError
from .meter import Meter
from .speech import say, size, warn

TRIES = 3
DELAY_S = 1.0
PIECE_BYTES = 256 * 1024
GOT, NOT_NEWER, ABSENT, FAILED = "got", "not newer", "absent", "failed"


class Refused(Exception):
    """The store answered with a status that trying again does not change."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class Store:
    """The store, as far as one transfer speaks to it."""

    def __init__(self, transfer: dict) -> None:
        self._meter_s = transfer.get("meter_s") or 0
        self._client = Client(
            transfer.get("tls") or {},
            timeout_s=transfer["timeout_s"],
            header_timeout_s=transfer["timeout_s"],
            environment=transfer.get("environment") or {},
        )

    def download(self, signed: dict, shelf) -> str:
        """Put the object on the shelf if it is newer, whole or not at all; what came of it."""
        try:
            return _often(lambda: self._download(signed, shelf), "download")
        except Refused as exc:
            if exc.status == 404:
                return ABSENT
            warn("the store of caches refuses the download: %s; its credentials may not read this object, or not see"
                 " that there is none" % exc)  # fmt: skip
        except (HttpError, OSError) as exc:
            warn("the cache was not downloaded: %s" % said(exc))
        return FAILED

    def upload(self, signed: dict, file, length: int) -> float | None:
        """Bring the content of a file into the store: the store's time when it was there, or None when it is not."""
        try:
            return _often(lambda: self._upload(signed, file, length), "upload")
        except Refused as exc:
            warn("the store of caches refuses the upload: %s; its credentials may not write this object" % exc)
        except (HttpError, OSError) as exc:
            warn("the cache was not uploaded: %s" % said(exc))
        return None

    def _download(self, signed: dict, shelf) -> str:
        with self._client.fetch(signed["url"], signed.get("headers") or {}) as answer:
            _judge(answer)
            changed_at = _instant(answer.header("Last-Modified"))
            if changed_at is not None and changed_at <= shelf.changed_at():
                return NOT_NEWER
            meter = Meter("Downloaded", self._meter_s)
            with shelf.anew() as draft:
                for piece in answer.pieces():
                    draft.file.write(piece)
                    meter.add(len(piece))
                draft.put(changed_at)
        say("Downloaded %s" % size(meter.count))
        return GOT

    def _upload(self, signed: dict, file, length: int) -> float:
        file.seek(0)
        meter = Meter("Uploaded", self._meter_s)
        with self._client.begin("PUT", signed["url"], signed.get("headers") or {}, length=length) as exchange:
            with contextlib.suppress(Answered):
                for piece in iter(lambda: file.read(PIECE_BYTES), b""):
                    exchange.send(piece)
                    meter.add(len(piece))
                exchange.end()
            with exchange.answer() as answer:
                _judge(answer)
                at = _instant(answer.header("Last-Modified") or answer.header("Date"))
                return time.time() if at is None else at


def said(exc: Exception) -> str:
    """An error as a line that tells no address."""
    if isinstance(exc, OSError) and exc.strerror:
        return "%s: %s" % (exc.filename, exc.strerror) if exc.filename else exc.strerror
    return str(exc)


def _judge(answer) -> None:
    """Raise unless the store has done it."""
    if answer.status >= 500 or answer.status == 429:
        raise HttpError("the store of caches failed: %s" % answer.line)
    if not 200 <= answer.status < 300:
        raise Refused(answer.status, answer.line)


def _often(do, what: str):
    for _ in range(TRIES - 1):
        try:
            return do()
        except HttpError as exc:
            warn("%s of the cache: %s; it is tried again" % (what, exc))
            time.sleep(DELAY_S)
    return do()


def _instant(text: str) -> float | None:
    parsed = parsedate_tz(text)
    return None if parsed is None else float(mktime_tz(parsed))
