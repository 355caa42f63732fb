"""The heartbeat: renews every claim of this manager, and says when they can no longer be trusted.

It runs on a thread of its own and waits for nothing else. `may_speak` compares the monotonic clock with the end of the
claims as last confirmed, so a manager that was stopped and wakes up late falls silent before it has asked anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from fleet.model.ids import ManagerId
from fleet.sdk import FleetError
from fleet.store import managers
from fleet.store.database import Store
from fleet.store.engine import StoreError

log = structlog.get_logger(__name__)


class Heart:
    """Keeps a manager's claims alive."""

    def __init__(self, *, store: Store, me: ManagerId, session: str, ttl: timedelta) -> None:
        self._store = store
        self._me = me
        self._session = session
        self._ttl = ttl
        self.lost: Callable[[], None] = lambda: None  # what to do when the claims are gone
        self.look: Callable[[], object] = lambda: None  # at the clocks: one that was set is no end of our claims
        self._good_until = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self.failing_since: float | None = None

    def start(self) -> None:
        """Begin; the session's claims were taken a moment ago."""
        self._good_until = time.monotonic() + self._ttl.total_seconds()
        self._thread.start()

    def may_speak(self) -> bool:
        """Whether our claims hold for certain: nobody else can have taken them over yet.

        A database that nobody can share knows no other: a full disk must not keep us from reporting what runs.
        """
        return not self._store.shared or time.monotonic() < self._good_until

    def stop(self, patience_s: float = 10.0) -> None:
        """End the thread; the claims run out by themselves."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._stop.wait(self._ttl.total_seconds() / 4):
            self.beat()

    def beat(self) -> None:
        """Renew once."""
        before = time.monotonic()
        try:
            self.look()
            alone = not self._store.shared
            held = self._store.write(lambda tx: managers.heartbeat(tx, self._me, self._session, self._ttl, alone=alone))
        except StoreError as exc:
            if self.failing_since is None:
                self.failing_since = before
                log.warning("claims_not_renewed", error=str(exc))
            return
        if self.failing_since is not None:
            log.info("claims_renewed_again", after_s=round(time.monotonic() - self.failing_since))
            self.failing_since = None
        if held:
            # counted from before the call: the store may have begun to count then
            self._good_until = before + self._ttl.total_seconds()
        else:
            log.warning("claims_lost", manager=self._me)
            self._recover()

    def _recover(self) -> None:
        try:
            self.lost()
        except FleetError as exc:  # the next beat finds them lost again, and tries again
            log.warning("claims_not_recovered", manager=self._me, error=str(exc))
