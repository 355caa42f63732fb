"""What signals do, and the life of a manager from its start to its end.

SIGTERM, SIGINT   stop at once and leave the jobs running for the next start (or abort, or drain: `on_term`)
SIGQUIT           drain: take no more jobs, wait for those that run, then delete instances where that is wished
a second SIGINT   abort the jobs; a third exits at once
SIGHUP            read the configuration again

A SIGTERM that is sent twice says nothing new: service managers do so.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType

import structlog

from fleet.model.ids import PoolName
from fleet.runtime.app import Manager
from fleet.runtime.reloading import Reloader
from fleet.runtime.web import Web
from fleet.settings.manager import OnTerm
from fleet.store import jobs, leases, managers
from fleet.store.database import Tx
from fleet.store.engine import StoreError
from fleet.store.instances import machines_left

log = structlog.get_logger(__name__)
LOOK_S = 0.2
RELOAD_LOOK_S = 3.0
ORDER = [OnTerm.DRAIN, OnTerm.LEAVE, OnTerm.ABORT]


@dataclass(slots=True)
class Wishes:
    """What the signals asked for so far.

    Attributes:
        on_term: what SIGTERM and SIGINT are to do.
    """

    how: OnTerm | None = None
    reload: bool = False
    interrupts: int = 0
    woken: threading.Event = field(default_factory=threading.Event)
    on_term: Callable[[], OnTerm] = lambda: OnTerm.LEAVE

    def want(self, how: OnTerm) -> None:
        """Stop like this; what was asked for before counts less when it is gentler."""
        if self.how is None or ORDER.index(how) > ORDER.index(self.how):
            self.how = how
        self.woken.set()

    def install(self) -> None:
        """Listen to signals from now on; on the main thread."""
        signal.signal(signal.SIGTERM, self._term)
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGQUIT, self._quit)
        signal.signal(signal.SIGHUP, self._hup)

    def _term(self, _number: int, _frame: FrameType | None) -> None:
        self.want(self.on_term())

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self.interrupts += 1
        if self.interrupts >= 3:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.want(OnTerm.ABORT if self.interrupts == 2 else self.on_term())

    def _quit(self, _number: int, _frame: FrameType | None) -> None:
        self.want(OnTerm.DRAIN)

    def _hup(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True
        self.woken.set()


class Life:
    """Runs a manager until a signal ends it."""

    def __init__(
        self, manager: Manager, reloader: Reloader, wishes: Wishes | None = None, web: Web | None = None
    ) -> None:
        self.manager = manager
        self.reloader = reloader
        self.web = web
        self.wishes = wishes or Wishes()
        self.wishes.on_term = lambda: self.manager.settings.fleet.on_term

    def install(self) -> None:
        """Listen to signals from now on; on the main thread."""
        self.wishes.install()

    def run(self) -> None:
        """Until a signal asks for the end; then end as it asked."""
        self.manager.start()
        while self.wishes.how is None:
            forced, self.wishes.reload = self.wishes.reload, False
            self.reloader.look(forced=forced)
            if self.web is not None:
                self.web.follow()
            if self.wishes.how is None and not self.wishes.reload:
                self.wishes.woken.wait(RELOAD_LOOK_S)
            self.wishes.woken.clear()
        if self.wishes.how is OnTerm.DRAIN:
            self._drain()
        if self.wishes.how is OnTerm.ABORT:
            self._abort()
            self.manager.close("stopped; its jobs were aborted")
        elif self.wishes.how is OnTerm.LEAVE:
            self._say("stopping", "its jobs go on and are followed again after the next start", keep=False)
            self.manager.close("stopped; its jobs go on and are followed again after the next start")
        else:
            self.manager.close("drained")
        if self.web is not None:  # it answers, that we stop, to the end
            self.web.close()

    def _say(self, state: str, reason: str, *, keep: bool = True) -> None:
        """Say what we are doing: in the log, and for `fleetctl status` in our row unless it soon says more."""
        manager = self.manager
        manager.state = state
        log.info("manager_state_changed", state=state, manager=manager.me, reason=reason)
        if not keep:
            return
        try:
            manager.store.write(lambda tx: managers.set_state(tx, manager.me, state, reason))
        except StoreError as exc:
            log.warning("state_not_stored", state=state, error=str(exc))

    def _unsettled(self) -> int:
        """Jobs that are open, and machines that are being cleaned after one; -1 when the store does not say."""
        me = self.manager.me
        try:
            return self.manager.store.read(
                lambda tx: len(
                    {each.key for each in jobs.open_jobs(tx, me)}
                    | {each.job for each in leases.cleaning_leases(tx, me)}
                )
            )
        except StoreError:
            return -1

    def _drain(self) -> None:
        self._say("draining", "no new jobs; waiting for those that run")
        self.manager.stop_asking.set()
        told = -1
        while (left := self._unsettled()) != 0 and self.wishes.how is OnTerm.DRAIN:
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
            if self._machines_left(names) == 0:
                return
            time.sleep(LOOK_S)
        log.warning("instances_left_on_shutdown", pools=names)

    def _machines_left(self, names: list[PoolName]) -> int:
        try:
            return self.manager.store.read(lambda tx: machines_left(tx, names))
        except StoreError:
            return -1

    def _abort(self) -> None:
        self._say("aborting", "the jobs are aborted and reported as interrupted")
        self.manager.stop_asking.set()

        def interrupt(tx: Tx) -> int:
            found = jobs.open_jobs(tx, self.manager.me)
            for job in found:
                if job.stop is None and job.outcome is None:
                    jobs.update_job(tx, job.key, job.epoch, stop="interrupt", stop_reason="the runner was stopped")
            return len(found)

        try:
            count = self.manager.store.write(interrupt)
        except StoreError as exc:
            log.error("jobs_not_aborted", error=str(exc), left="they go on and are followed after the next start")
            return
        log.info("jobs_aborted", jobs=count)
        self.manager.hints("execute")
        until = time.monotonic() + self.manager.settings.global_.shutdown_timeout
        while time.monotonic() < until and self._unsettled() != 0:
            time.sleep(LOOK_S)
