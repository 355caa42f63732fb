"""When each job is next spoken of: one thread, one heap, however many jobs."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable


class Agenda:
    """Calls `due(key)` when the time of `key` has come. Thread-safe."""

    def __init__(self, due: Callable[[str], None]) -> None:
        self._due = due
        self._heap: list[tuple[float, str]] = []
        self._at: dict[str, float] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="agenda", daemon=True)
        self._thread.start()

    def put(self, key: str, at: float) -> None:
        """Speak of `key` at monotonic instant `at`, or earlier where that was planned before."""
        with self._changed:
            known = self._at.get(key)
            if known is not None and known <= at:
                return
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
            if self._heap[0][0] == at:
                self._changed.notify()

    def drop(self, key: str) -> None:
        """Speak of it no more."""
        with self._changed:
            self._at.pop(key, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(5)

    def _next(self) -> str | None:
        """The key whose time has come; waits for it; None when closed."""
        with self._changed:
            while not self._closed:
                while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
                    heapq.heappop(self._heap)  # it was moved or dropped since
                if not self._heap:
                    self._changed.wait()
                    continue
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                _, key = heapq.heappop(self._heap)
                del self._at[key]
                return key
            return None

    def _run(self) -> None:
        while (key := self._next()) is not None:
            self._due(key)
