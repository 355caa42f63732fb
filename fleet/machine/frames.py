"""Frames of the agent channel as bytes: see docs/reference/agent-frames.md.

Two 32-bit numbers (length of head, length of body), a JSON object, a body. Reading keeps one buffer that grows at its
end and shrinks at its front, so a stream costs what its bytes cost, however it is cut into pieces.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

PROTOCOL = 1
MAX_HEAD_BYTES = 16 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024
_LENGTHS = struct.Struct(">II")

Head = dict[str, Any]


class BrokenFrame(Exception):
    """These bytes are no frame; the channel cannot go on."""


def encode(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One frame as bytes."""
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(text) > MAX_HEAD_BYTES or len(body) > MAX_BODY_BYTES:
        raise BrokenFrame(f"a frame of {len(text)} + {len(body)} bytes is over the limits")
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Head, bytes]]:
        """The frames that are complete with `data`, in order.

        Raises:
            BrokenFrame: what came is no frame.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _LENGTHS.size:
                head_bytes, body_bytes = _LENGTHS.unpack_from(buffer, at)
                if head_bytes > MAX_HEAD_BYTES or body_bytes > MAX_BODY_BYTES:
                    raise BrokenFrame(f"bytes that are no frame: {bytes(buffer[at : at + 40])!r}")
                start = at + _LENGTHS.size
                middle = start + head_bytes
                end = middle + body_bytes
                if len(buffer) < end:
                    break
                with memoryview(buffer) as view:
                    text, body = bytes(view[start:middle]), bytes(view[middle:end])
                at = end
                yield _head(text), body
        finally:
            del buffer[:at]


def _head(text: bytes) -> Head:
    try:
        head = json.loads(text)
    except ValueError as exc:
        raise BrokenFrame(f"a frame's head is no JSON: {text[:40]!r}") from exc
    if not isinstance(head, dict) or not isinstance(head.get("type"), str):
        raise BrokenFrame(f"a frame's head has no type: {text[:40]!r}")
    return head
