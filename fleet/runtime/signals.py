"""What signals do, and the life of a manager from its start to its end.

SIGTERM, SIGINT   stop at once and leave the jobs running for the next start (or abort, or drain: `on_term`)
SIGQUIT           drain: take no more jobs, wait for those that run, then delete instances where that is wished
a second SIGINT   abort the jobs; a third exits at once
SIGHUP            read the configuration again
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType

import structlog

from fleet.runtime.app import Manager
from fleet.runtime.reloading import Reloader
from fleet.settings.manager import OnTerm
from fleet.store import jobs, managers
from fleet.store.database import Tx
from fleet.store.engine import StoreError
from fleet.store.instances import machines_left

log = structlog.get_logger(__name__)
LOOK_S = 0.2


@dataclass(slots=True)
class Wishes:
    """What the signals asked for so far."""

    how: OnTerm | None = None
    reload: bool = False
    interrupts: int = 0
    woken: threading.Event = field(default_factory=threading.Event)

    def want(self, how: OnTerm) -> None:
        """Stop like this; what was asked for before counts less when it is gentler."""
        order = [OnTerm.DRAIN, OnTerm.LEAVE, OnTerm.ABORT]
        if self.how is None or order.index(how) > order.index(self.how):
            self.how = how
        self.woken.set()


class Life:
    """Runs a manager until a signal ends it."""

    def __init__(self, manager: Manager, reloader: Reloader) -> None:
        self.manager = manager
        self.reloader = reloader
        self.wishes = Wishes()

    def install(self) -> None:
        """Listen to signals from now on; on the main thread."""
        signal.signal(signal.SIGTERM, self._term)
        signal.signal(signal.SIGINT, self._term)
        signal.signal(signal.SIGQUIT, self._quit)
        signal.signal(signal.SIGHUP, self._hup)

    def _term(self, number: int, _frame: FrameType | None) -> None:
        wishes = self.wishes
        if number == signal.SIGINT:
            wishes.interrupts += 1
        if wishes.interrupts >= 3:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        again = wishes.how is not None
        wishes.want(OnTerm.ABORT if again else self.manager.settings.fleet.on_term)

    def _quit(self, _number: int, _frame: FrameType | None) -> None:
        self.wishes.want(OnTerm.DRAIN)

    def _hup(self, _number: int, _frame: FrameType | None) -> None:
        self.wishes.reload = True
        self.wishes.woken.set()

    def run(self) -> None:
        """Until a signal asks for the end; then end as it asked."""
        self.manager.start()
        while self.wishes.how is None:
            self.wishes.woken.wait(3.0)
            self.wishes.woken.clear()
            forced, self.wishes.reload = self.wishes.reload, False
            if self.wishes.how is None:
                self.reloader.look(forced=forced)
        if self.wishes.how is OnTerm.DRAIN:
            self._drain()
        if self.wishes.how is OnTerm.ABORT:
            self._abort()
            self.manager.close("stopped; its jobs were aborted")
        elif self.wishes.how is OnTerm.LEAVE:
            self.manager.close("stopped; its jobs go on and are followed again after the next start")
        else:
            self.manager.close("drained")

    def _say(self, state: str, reason: str) -> None:
        manager = self.manager
        manager.state = state
        log.info("manager_state_changed", state=state, manager=manager.me, reason=reason)
        try:
            manager.store.write(lambda tx: managers.set_state(tx, manager.me, state, reason))
        except StoreError as exc:
            log.warning("state_not_stored", state=state, error=str(exc))

    def _open_jobs(self) -> int:
        try:
            return len(self.manager.store.read(lambda tx: jobs.open_jobs(tx, self.manager.me)))
        except StoreError:
            return -1

    def _drain(self) -> None:
        self._say("draining", "SIGQUIT: no new jobs; waiting for those that run")
        self.manager.stop_asking.set()
        told = -1
        while (left := self._open_jobs()) != 0 and self.wishes.how is OnTerm.DRAIN:
            if left != told:
                log.info("jobs_awaited", jobs=left)
                told = left
            self.wishes.woken.wait(LOOK_S)
            self.wishes.woken.clear()
        if self.wishes.how is OnTerm.DRAIN:
            self._let_go()

    def _let_go(self) -> None:
        """Delete the machines of the pools that wish it, and wait for them as long as they say."""
        going = [pool for pool in self.manager.book.pools.values() if pool.settings.delete_instances_on_shutdown]
        if not going:
            return
        names = [pool.name for pool in going]
        patience = max(
            pool.settings.shutdown_deletion_interval * pool.settings.shutdown_deletion_retries for pool in going
        )
        patience = max(patience, timedelta(seconds=self.manager.settings.global_.shutdown_timeout))
        log.info("instances_deleted_on_shutdown", pools=names, patience_s=patience.total_seconds())
        self.manager.let_go(names)
        until = time.monotonic() + patience.total_seconds()
        while time.monotonic() < until and self.wishes.interrupts == 0:
            if self.manager.store.read(lambda tx: machines_left(tx, names)) == 0:
                return
            time.sleep(LOOK_S)
        log.warning("instances_left_on_shutdown", pools=names)

    def _abort(self) -> None:
        self._say("aborting", "the jobs are aborted and reported as interrupted")
        self.manager.stop_asking.set()

        def interrupt(tx: Tx) -> int:
            found = jobs.open_jobs(tx, self.manager.me)
            for job in found:
                if job.stop is None and job.outcome is None:
                    jobs.update_job(tx, job.key, job.epoch, stop="interrupt", stop_reason="the runner was stopped")
            return len(found)

        count = self.manager.store.write(interrupt)
        log.info("jobs_aborted", jobs=count)
        self.manager.hints("execute")
        until = time.monotonic() + self.manager.settings.global_.shutdown_timeout
        while time.monotonic() < until and self._open_jobs() != 0:
            time.sleep(LOOK_S)
