"""The token bucket in front of creation (`scale_throttle`), as a function of what was left and how long ago.

It keeps nothing: who applies a plan stores tokens and instant, and takes one token for each machine asked for. A
bucket without a limit is None everywhere, so that nobody compares with infinity.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from fleet.model.policy import Throttle

_DUST = 1e-9  # ten refills of 0.1 are one token


def refill(throttle: Throttle, tokens: float | None, at: datetime, now: datetime) -> float | None:
    """What is in the bucket now, given `tokens` at instant `at`; a bucket never seen (None) starts full.

    A clock that went back adds nothing and takes nothing.
    """
    if throttle.per_s <= 0 or throttle.burst <= 0:
        return None
    if tokens is None:
        return float(throttle.burst)
    passed_s = max(0.0, (now - at).total_seconds())
    return min(float(throttle.burst), tokens + passed_s * throttle.per_s)


def whole(tokens: float) -> int:
    """How many machines these tokens pay for."""
    return max(0, int(tokens + _DUST))


def next_token_at(throttle: Throttle, tokens: float, now: datetime) -> datetime:
    """When the bucket next holds one more whole token than now; `now` when it is not limited."""
    if throttle.per_s <= 0:
        return now
    return now + timedelta(seconds=max(0.0, whole(tokens) + 1 - tokens) / throttle.per_s)
