"""A job's payload as it is kept: GitLab's own bytes, and beside them the TLS texts that came with the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping


def pack(raw: bytes, beside: Mapping[str, str]) -> bytes:
    """One text of bytes for both."""
    head = json.dumps(dict(beside)).encode()
    return len(head).to_bytes(4, "big") + head + raw


def unpack(packed: bytes) -> tuple[bytes, dict[str, str]]:
    """What `pack` was given."""
    end = 4 + int.from_bytes(packed[:4], "big")
    beside: dict[str, str] = json.loads(packed[4:end])
    return packed[end:], beside
