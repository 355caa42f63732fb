"""Judges whether one job's trace updates kept the announced interval.

The rule, precisely. A PATCH is *early* when it began less than `interval - slack` seconds after
the previous accepted PATCH of the same job began, unless that one was a full chunk of 1 MiB (the
rest may follow at once, and says nothing of the pace). `interval` is what the client was told last
for this job. Early ones are held back until it is known why they came:

* the job's final update came within `BURST_GAP_S` of the last PATCH, and they were at most
  `BURST_LENGTH`: the finalising burst, legal;
* followed by a PATCH that was on time, or more in a row, or a final update that came later:
  a breach each.

What the client could not know forgives: an answer that never arrived, a restarted manager. A PATCH that began before
the forgiveness and was taken in after it (held up on its way while its sender was killed) is of before.
"""

from __future__ import annotations

from typing import NamedTuple

FULL_CHUNK_BYTES = 1 << 20
FIRST_INTERVAL_S = 3.0
BURST_LENGTH = 3
BURST_GAP_S = 5.0


class Early(NamedTuple):
    """One PATCH that came before its time."""

    at: float
    gap_s: float
    interval_s: float


class Pace:
    """The PATCH times of one job; each method returns the breaches that are now certain."""

    def __init__(self, slack_s: float) -> None:
        self.interval_s = FIRST_INTERVAL_S
        self._slack_s = slack_s
        self._previous: float | None = None
        self._previous_was_full = False
        self._early: list[Early] = []
        self._forgiven_at = float("-inf")

    def patched(self, at: float, size_bytes: int) -> list[Early]:
        """A PATCH that began at `at` (monotonic) was accepted."""
        if at < self._forgiven_at:
            return []
        gap = None if self._previous is None else at - self._previous
        soon = gap is not None and gap < self.interval_s - self._slack_s
        rest = soon and self._previous_was_full
        self._previous, self._previous_was_full = at, size_bytes >= FULL_CHUNK_BYTES
        if rest:
            return []
        if soon and gap is not None:
            self._early.append(Early(at, gap, self.interval_s))
            return self._convict() if len(self._early) > BURST_LENGTH else []
        return self._convict() if gap is not None else []

    def ended(self, at: float) -> list[Early]:
        """The final update began at `at`: the burst before it, if there was one, is over."""
        if self._early and at - (self._previous or self._early[-1].at) > BURST_GAP_S:
            return self._convict()
        self.forgive(at)
        return []

    def forgive(self, at: float) -> None:
        """The client may not know what it did before `at`: judge from the next PATCH on."""
        self._forgiven_at = at
        self._previous = None
        self._early.clear()

    def _convict(self) -> list[Early]:
        found, self._early = self._early, []
        return found
