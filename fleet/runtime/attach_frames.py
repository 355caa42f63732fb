"""What the two ends of `fleetctl attach` say to each other once the call was upgraded: kind, length, payload.

    d   bytes: of the job's log, of what a terminal shows, or what was typed
    s   from fleetctl: the size of its terminal, `{"rows": N, "cols": N}`
    n   from the manager: a sentence for the person
    e   from the manager: it is over, `{"state", "failure_reason", "exit_code", "message"}`

Rule: light, so that the command loads nothing of the manager.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PROTOCOL = "fleet-attach"
DATA, SIZE, NOTE, END = b"d", b"s", b"n", b"e"
LARGEST = 1 << 20
_HEAD = struct.Struct(">cI")


class BrokenFrame(Exception):
    """These bytes are no frame."""


def pack(kind: bytes, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(kind, len(payload)) + payload


class Unpacker:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that are complete now; BrokenFrame when it is none of ours."""
        self._bytes += data
        while len(self._bytes) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._bytes)
            if length > LARGEST or kind not in (DATA, SIZE, NOTE, END):
                raise BrokenFrame("the other end does not speak as fleetctl attach does")
            if len(self._bytes) < _HEAD.size + length:
                return
            payload = bytes(self._bytes[_HEAD.size : _HEAD.size + length])
            del self._bytes[: _HEAD.size + length]
            yield kind, payload
