"""Worker lanes: work on the outside, one piece at a time for each outside thing.

A lane is named for what may hang: a provider account, an instance, a GitLab server. Work in one lane runs in order; a
lane that hangs holds up nobody else. After its time a piece is given up: its thread is left behind, and the lane goes
on with a fresh one, up to `LEFT_BEHIND` threads, then the lane stays shut until one of them returns. A piece that
returns late does no harm, because results are applied only while the claim or the state that they rest on holds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from fleet.sdk import FleetError

log = structlog.get_logger(__name__)
LEFT_BEHIND = 3
IDLE_S = 20.0


@dataclass(slots=True, kw_only=True)
class _Piece:
    name: str
    work: Callable[[], None]
    timeout_s: float
    started: float = 0.0
    given_up: bool = False


@dataclass(slots=True)
class _Lane:
    waiting: deque[_Piece] = field(default_factory=deque)
    running: list[_Piece] = field(default_factory=list)
    left_behind: int = 0


class Lanes:
    """All lanes of a manager. Thread-safe."""

    def __init__(self, *, bound: int = 1000) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._idle: deque[_Worker] = deque()
        self._closed = False
        self._watch = threading.Thread(target=self._give_up_late, name="lanes-watch", daemon=True)
        self._wake_watch = threading.Event()
        self._watch.start()

    def submit(self, lane: str, name: str, work: Callable[[], None], *, timeout_s: float, width: int = 1) -> bool:
        """Queue `work` in `lane`; False when the same piece waits or runs there already, or the lane is full.

        Args:
            lane: what may hang.
            name: which piece; a name is in a lane at most once.
            work: runs on a thread of its own; what it raises is logged.
            timeout_s: after which it is given up.
            width: how many pieces of this lane may run at once.
        """
        with self._lock:
            if self._closed:
                return False
            at = self._lanes.setdefault(lane, _Lane())
            known = any(p.name == name for p in at.waiting) or any(
                p.name == name and not p.given_up for p in at.running
            )
            if known or len(at.waiting) >= self._bound:
                return False
            at.waiting.append(_Piece(name=name, work=work, timeout_s=timeout_s))
            self._start(lane, at, width)
        return True

    def busy(self, lane: str) -> int:
        """How many pieces wait or run in a lane."""
        with self._lock:
            at = self._lanes.get(lane)
            return 0 if at is None else len(at.waiting) + sum(not p.given_up for p in at.running)

    def threads(self) -> int:
        """How many threads the lanes hold, idle ones included."""
        with self._lock:
            return len(self._idle) + sum(len(at.running) for at in self._lanes.values())

    def close(self, timeout_s: float) -> None:
        """Take no more work and wait up to `timeout_s` for what runs; the rest is left behind."""
        with self._lock:
            self._closed = True
            for at in self._lanes.values():
                at.waiting.clear()
            idle = list(self._idle)
        for worker in idle:
            worker.stop()
        self._wake_watch.set()
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and any(at.running for at in list(self._lanes.values())):
            time.sleep(0.01)
        self._watch.join(1)

    def _start(self, lane: str, at: _Lane, width: int) -> None:
        running = sum(not piece.given_up for piece in at.running)
        while at.waiting and running < width and at.left_behind <= LEFT_BEHIND:
            piece = at.waiting.popleft()
            piece.started = time.monotonic()
            at.running.append(piece)
            running += 1
            worker = self._idle.pop() if self._idle else _Worker(self)
            worker.give(lane, piece, width)

    def done(self, worker: _Worker, lane: str, piece: _Piece, width: int) -> bool:
        """A worker has finished a piece; True when the worker may wait for the next."""
        with self._lock:
            at = self._lanes[lane]
            at.running.remove(piece)
            if piece.given_up:
                at.left_behind -= 1
            stays = not self._closed and len(self._idle) < 32
            if stays:
                self._idle.append(worker)
            if not self._closed:
                self._start(lane, at, width)
            if not at.running and not at.waiting:
                del self._lanes[lane]
            return stays

    def postponed(self, lane: str, work: str, error: str) -> None:
        """A piece could not be done now; at the end of the manager that is no news."""
        if self._closed:
            log.debug("work_cut_off", lane=lane, work=work, error=error)
        else:
            log.warning("work_postponed", lane=lane, work=work, error=error)

    def retire(self, worker: _Worker) -> bool:
        """An idle worker wants to end; False when it was just given work."""
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
            return False

    def _give_up_late(self) -> None:
        while not self._wake_watch.wait(1.0):
            now = time.monotonic()
            with self._lock:
                for lane, at in self._lanes.items():
                    self._give_up_in(lane, at, now)

    def _give_up_in(self, lane: str, at: _Lane, now: float) -> None:
        for piece in at.running:
            if not piece.given_up and now - piece.started > piece.timeout_s:
                piece.given_up = True
                at.left_behind += 1
                log.warning("work_hung", lane=lane, work=piece.name, after_s=round(now - piece.started))
        self._start(lane, at, 1)


class _Worker:
    """One thread, kept for a while between pieces."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._ready = threading.Event()
        self._next: tuple[str, _Piece, int] | None = None
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
        self._thread.start()

    def give(self, lane: str, piece: _Piece, width: int) -> None:
        self._next = (lane, piece, width)
        self._ready.set()

    def stop(self) -> None:
        self._next = None
        self._ready.set()

    def _run(self) -> None:
        while True:
            if not self._ready.wait(IDLE_S):
                if self._lanes.retire(self):
                    return
                continue
            self._ready.clear()
            task = self._next
            if task is None:
                return
            lane, piece, width = task
            try:
                piece.work()
            except FleetError as exc:
                # expected, like a database that is away: whoever handed it in hands it in again
                self._lanes.postponed(lane, piece.name, str(exc))
            except Exception:
                log.exception("work_failed", lane=lane, work=piece.name)
            # nothing may hold on to what the piece held
            self._next = task = None
            if not self._lanes.done(self, lane, piece, width):
                return
