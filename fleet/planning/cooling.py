"""How long a scope that failed is left alone: exponential back-off, remembered in the store.

A scope is how far a provider's error reaches (`zone:aws/eu-1a`); a placement lists those that stop it. Throttling has
the scope of the API, which no placement lists: calls slow down, capacity is not blamed. An API is asked again soon,
because most often it is well in a moment. A success forgets the scope (its row is deleted); so does a long time
without failure.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from fleet.model.policy import CoolDown

FIRST = timedelta(seconds=30)
LONGEST = timedelta(minutes=30)
API_FIRST = timedelta(seconds=5)
API_LONGEST = timedelta(minutes=1)
FORGOTTEN = timedelta(hours=1)  # after a cool-down has ended; a scope nobody needed in between starts afresh


def cooled(
    *, scope: str, before: CoolDown | None, now: datetime, reason: str, retry_after_s: float | None = None
) -> CoolDown:
    """The cool-down of a scope after one more failure.

    A failure while the scope already cools down is an echo of the same trouble (several requests were in the air), so
    it does not lengthen the row of failures. What the provider asks for is granted, however long.
    """
    asked = now + timedelta(seconds=max(0.0, retry_after_s or 0.0))
    if before is not None and before.until > now:
        return CoolDown(scope=scope, until=max(before.until, asked), failures=before.failures, reason=reason)
    remembered = before is not None and now - before.until <= FORGOTTEN
    failures = before.failures + 1 if before is not None and remembered else 1
    return CoolDown(scope=scope, until=max(now + back_off(failures, scope), asked), failures=failures, reason=reason)


def back_off(failures: int, scope: str = "") -> timedelta:
    """30 s after the first failure, doubling to 30 min; for an API 5 s, doubling to 1 min."""
    doublings = min(failures - 1, 16)  # far beyond the longest; keeps the power small
    first, longest = (API_FIRST, API_LONGEST) if scope.startswith("api:") else (FIRST, LONGEST)
    return min(timedelta(seconds=first.total_seconds() * (1 << doublings)), longest)
