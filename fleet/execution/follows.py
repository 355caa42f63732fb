"""Takes the frames of running jobs off the channels and into the spool.

Runs on the channels' reading threads, so everything here is short: a write to a file, and a hint. What takes longer
(an exit, a gap) is handed to the instance's lane through `Handlers`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from fleet.store.spool import Spool, SpoolFull, SpoolGap

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Follow:
    """A job whose output comes over a channel.

    Attributes:
        shift: length of the prologue: an offset in the agent's log is this much further on in the trace.
        settled: the agent has answered `follow`, so from now on every byte joins the one before.
        stopped: why nothing is taken just now; it is followed again later.
        exited: its exit came and is being worked on.
    """

    key: str
    epoch: int
    lease: str
    instance: str
    shift: int
    settled: bool = False
    stopped: str | None = None
    exited: bool = False


class Handlers(Protocol):
    """What the follower hands on."""

    def grew(self, key: str) -> None:
        """There is more of this job's trace."""

    def exited(self, follow: Follow, frame: Mapping[str, Any]) -> None:
        """The job has ended and its log is complete."""

    def asked(self, follow: Follow, frame: Mapping[str, Any]) -> None:
        """The job asks for fresh addresses of its caches."""

    def broken(self, follow: Follow) -> None:
        """It must be followed again from what the spool holds."""


class Follows:
    """The jobs that are followed now, by lease. Thread-safe."""

    def __init__(self, spool: Spool, handlers: Handlers) -> None:
        self._spool = spool
        self._handlers = handlers
        self._by_lease: dict[str, Follow] = {}
        self._lock = threading.Lock()

    def add(self, follow: Follow) -> None:
        """Take what comes of this lease from now on."""
        with self._lock:
            self._by_lease[follow.lease] = follow

    def get(self, lease: str) -> Follow | None:
        """The follow of a lease."""
        return self._by_lease.get(lease)

    def drop(self, lease: str) -> None:
        """Take nothing more of it."""
        with self._lock:
            self._by_lease.pop(lease, None)

    def is_followed(self, lease: str) -> bool:
        """Whether its output arrives, or its end is being worked on."""
        follow = self._by_lease.get(lease)
        return follow is not None and (follow.stopped is None or follow.exited)

    def count(self) -> int:
        """How many jobs are followed."""
        return len(self._by_lease)

    def clear(self) -> None:
        """Take nothing more of any job."""
        with self._lock:
            self._by_lease.clear()

    def drop_instance(self, instance: str) -> int:
        """The channel of this instance has ended; returns how many jobs must be followed again."""
        with self._lock:
            gone = [
                lease for lease, follow in self._by_lease.items() if follow.instance == instance and not follow.exited
            ]
            for lease in gone:
                del self._by_lease[lease]
        return len(gone)

    def take(self, instance: str, head: Mapping[str, Any], body: bytes) -> None:
        """One frame from a channel."""
        follow = self._by_lease.get(str(head.get("lease")))
        if follow is None or follow.instance != instance:
            return
        match head.get("type"):
            case "data":
                self._data(follow, int(head["offset"]), body)
            case "sign":
                self._handlers.asked(follow, head)
            case "exit":
                if follow.stopped is None and not follow.exited:
                    follow.exited = True
                    self._handlers.exited(follow, head)

    def _data(self, follow: Follow, offset: int, body: bytes) -> None:
        if follow.stopped is not None:
            return
        try:
            self._spool.append(follow.key, follow.shift + offset, body)
        except (SpoolFull, SpoolGap, OSError) as exc:
            if isinstance(exc, SpoolGap) and not follow.settled:
                return  # it was on its way when this lease was asked for anew, from an earlier byte
            # nothing is lost: the agent keeps its log until it is told that ours is durable
            follow.stopped = str(exc)
            log.error("spool_stopped", job_key=follow.key, error=str(exc))
            self._handlers.broken(follow)
            return
        self._handlers.grew(follow.key)
