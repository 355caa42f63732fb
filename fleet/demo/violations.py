"""The list of everything a client did that the runner protocol forbids.

Rule: a line is written only when the client could have known better; whoever judges decides
that, this list only keeps the lines, in order, and never without bound.
"""

from __future__ import annotations

import threading

KEPT = 10_000


class Violations:
    """Lines `slug: job N: what happened`; safe to use from any thread."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def record(self, slug: str, job_id: int | None, detail: str) -> None:
        """Keep one breach; beyond `KEPT` of them the last line only says that there were more."""
        where = f"job {job_id}" if job_id is not None else "-"
        with self._lock:
            if len(self._lines) < KEPT:
                self._lines.append(f"{slug}: {where}: {detail}")
            elif len(self._lines) == KEPT:
                self._lines.append("too_many: -: further breaches are not listed")

    def lines(self) -> list[str]:
        """All breaches so far, oldest first."""
        with self._lock:
            return list(self._lines)

    def clear(self) -> None:
        """Forget them, for a test that provoked some on purpose."""
        with self._lock:
            self._lines.clear()
