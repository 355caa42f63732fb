"""When a request is worth sending again by itself, and after how long.

Rule: only statuses by which a server says "not now" are tried again, at most `ATTEMPTS` times in all; a broken
connection is not, for then nobody knows what the server did, and the caller does (it resumes at an offset, or asks
for another job). The server's wish beats our own back-off, and `RateLimit-ResetTime` beats `Retry-After`.
"""

from __future__ import annotations

import email.utils
import random
from collections.abc import Mapping
from datetime import UTC, datetime

ATTEMPTS = 5
SHORTEST_S = 0.1
LONGEST_S = 60.0
NOT_NOW = frozenset({408, 429, 500, 502, 503, 504})


def is_not_now(status: int) -> bool:
    """Whether the same request may succeed in a moment."""
    return status in NOT_NOW or status >= 512


def wait_s(headers: Mapping[str, str], *, attempt: int, now: datetime, chance: random.Random) -> float:
    """How long to wait after failed attempt number `attempt` (from 1)."""
    asked = asked_wait_s(headers, now)
    if asked is not None:
        return asked
    longest = min(LONGEST_S, SHORTEST_S * 2.0**attempt)
    return chance.uniform(SHORTEST_S, longest)


def asked_wait_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait the server asks for, or None.

    The reset time is compared with the server's own `Date`, where it sends one, so that a wrong clock on either side
    neither stalls us nor makes us hurry.
    """
    reset = _instant(headers.get("ratelimit-resettime"))
    if reset is not None:
        left_s = (reset - (_instant(headers.get("date")) or now)).total_seconds()
        if left_s > 0:
            return left_s
    after = headers.get("retry-after", "").strip()
    return float(after) if after.isascii() and after.isdigit() and int(after) > 0 else None


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
