"""Frames of the channel: two 32-bit lengths, a JSON head, a body of bytes.

Rule: lengths are checked before anything is kept, so a broken peer costs no memory. What a frame means is left to
`requests.py` and `following.py`.
"""

from __future__ import annotations

import json
import struct

from .errors import BrokenFrame

LENGTHS = struct.Struct(">II")
HEAD_LIMIT = 16 * 1024 * 1024
BODY_LIMIT = 1024 * 1024
DATA_LIMIT = 64 * 1024


def encode(head: dict, body: bytes = b"") -> bytes:
    """One frame as bytes."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list:
        """The (head, body) pairs that are complete now; BrokenFrame when the stream is none of ours."""
        self._bytes += data
        frames = []
        at = 0
        while len(self._bytes) - at >= LENGTHS.size:
            head_length, body_length = LENGTHS.unpack_from(self._bytes, at)
            if head_length > HEAD_LIMIT or body_length > BODY_LIMIT:
                raise BrokenFrame("a frame of %d + %d bytes is over the limit" % (head_length, body_length))
            start = at + LENGTHS.size
            end = start + head_length + body_length
            if len(self._bytes) < end:
                break
            head = _parsed(bytes(self._bytes[start : start + head_length]))
            frames.append((head, bytes(self._bytes[start + head_length : end])))
            at = end
        del self._bytes[:at]
        return frames


def _parsed(text: bytes) -> dict:
    try:
        head = json.loads(text)
    except ValueError as exc:
        raise BrokenFrame("the head of a frame is not JSON") from exc
    if not isinstance(head, dict) or not isinstance(head.get("type"), str):
        raise BrokenFrame("the head of a frame has no type")
    return head
