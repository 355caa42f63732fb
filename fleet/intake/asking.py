"""Asks GitLab for jobs: a slot is reserved first, and given back on every way out that brings no job (law 3).

Which runner may ask next is decided in `planning.asking`. Each poll runs in a lane of its runner; GitLab may hold it
for most of a minute, and the stop sign ends it at once. A job that arrives in that moment is taken in all the same.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

import structlog

from fleet.gitlab.cancel import Cancel
from fleet.gitlab.client import GitLab, Info
from fleet.gitlab.outcomes import BrokenOffer, Forbidden, JobOffer, NoJob, Unavailable, Unusable
from fleet.intake.acknowledging import Acknowledger
from fleet.model.ids import ManagerId, RunnerKey
from fleet.planning.asking import Answer, PoolRoom, Refusal, RunnerAsk, began, choose, ended
from fleet.store import leases
from fleet.store.book import Book, Runner
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.worklist import held_by_runner

log = structlog.get_logger(__name__)
LANE_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What one activation saw and did."""

    runners: int = 0
    asked: int = 0
    polls: int = 0


class Watcher(Protocol):
    """Who counts how asking goes."""

    def taken(self, runner: Runner, waited_s: float, project_jobs_running: str) -> None:
        """A job was taken that had waited in GitLab for so long."""

    def not_begun(self, runner: Runner, refusal: Refusal) -> None:
        """The runner could ask before, and cannot now."""

    def refused(self, runner: Runner) -> None:
        """GitLab refused a poll."""


@dataclass(slots=True, kw_only=True)
class Intake:
    """The controller that asks for jobs.

    Attributes:
        concurrent: jobs at once on this manager.
        may_take: why no job may be taken just now (a full disk); None when one may.
        session_of: where GitLab will reach a terminal of the job that a poll may bring; empty for nowhere.
    """

    store: Store
    book: Book
    me: ManagerId
    submit: Callable[..., bool]
    hint: Callable[..., None]
    acknowledger: Acknowledger
    server_of: Callable[[Runner], GitLab]
    info_of: Callable[[Runner], Info]
    cancel: Cancel
    may_speak: Callable[[], bool]
    concurrent: int
    check_interval_s: float
    may_take: Callable[[], str | None] = lambda: None
    watcher: Watcher
    session_of: Callable[[Runner], Mapping[str, str]] = lambda runner: {}  # noqa: ARG005  no terminals
    wake_in: Callable[[float], None] = lambda seconds: None  # noqa: ARG005  nobody to wake in tests
    _asks: dict[RunnerKey, RunnerAsk] = field(default_factory=dict)
    _last_update: dict[RunnerKey, tuple[str, str | None]] = field(default_factory=dict)
    _last: RunnerKey | None = None
    _refusals: Mapping[RunnerKey, Refusal] = field(default_factory=dict)
    _late: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forgive(self) -> None:
        """The configuration was loaded anew: every runner counts as healthy."""
        with self._lock:
            self._asks = {
                key: replace(ask, failures=0, unhealthy_until=None, not_before=None) for key, ask in self._asks.items()
            }

    def states(self) -> list[RunnerAsk]:
        """How asking goes, for metrics and people."""
        with self._lock:
            return list(self._asks.values())

    def activate(self) -> Asking:
        """Begin the polls that may begin now."""
        if self.cancel.is_set() or not self.may_speak() or self.may_take() is not None:
            return Asking()
        runners = [each for each in self.book.runners.values() if not (each.retired or each.stopped) and each.token]
        self._settle_late()
        busy, rooms = self.store.read(lambda tx: (held_by_runner(tx, self.me), leases.rooms(tx)))
        with self._lock:
            states = [self._state(runner, busy.get(runner.key, 0)) for runner in runners]
            choice = choose(
                states,
                pools={name: PoolRoom(asking=asking, ask_limit=limit) for name, (asking, limit) in rooms.items()},
                concurrent=self.concurrent,
                now=self.store.clock(),
                last=self._last,
            )
            self._last = choice.last
        self._tell_refusals(choice.refusals)
        if choice.next_at is not None:
            self.wake_in((choice.next_at - self.store.clock()).total_seconds())
        asked = sum(self._begin(ask.runner, held=ask.held) for ask in choice.asks)
        return Asking(runners=len(runners), asked=asked, polls=sum(state.polls for state in self.states()))

    def _tell_refusals(self, refusals: Mapping[RunnerKey, Refusal]) -> None:
        """A runner that still cannot ask for the same reason is old news."""
        for key, refusal in refusals.items():
            if self._refusals.get(key) is not refusal and key in self.book.runners:
                self.watcher.not_begun(self.book.runners[key], refusal)
        self._refusals = dict(refusals)

    def _state(self, runner: Runner, jobs: int) -> RunnerAsk:
        settings = runner.settings
        known = self._asks.get(runner.key) or RunnerAsk(runner=runner.key, pool=runner.pool)
        state = replace(
            known,
            pool=runner.pool,
            limit=settings.limit,
            request_concurrency=settings.request_concurrency,
            adaptive=settings.feature_flags.get("FF_USE_ADAPTIVE_REQUEST_CONCURRENCY", True),
            check_interval=timedelta(seconds=self.check_interval_s),
            strict_check_interval=settings.strict_check_interval,
            unhealthy_requests_limit=settings.unhealthy_requests_limit,
            unhealthy_interval=settings.unhealthy_interval,
            jobs=jobs,
        )
        self._asks[runner.key] = state
        return state

    def _begin(self, key: RunnerKey, *, held: bool) -> bool:
        runner = self.book.runners[key]
        reservation = secrets.token_hex(8)

        def reserve(tx: Tx) -> bool:
            return leases.ask(
                tx,
                reservation_id=reservation,
                pool=runner.pool,
                runner_key=key,
                manager_id=self.me,
            )

        if not self.store.write(reserve):
            return False
        with self._lock:
            self._asks[key] = began(self._asks[key], self.store.clock())
        begun = self.submit(
            f"poll:{key}",
            f"poll:{reservation}",
            lambda: self._poll_and_settle(runner, reservation, held=held),
            timeout_s=LANE_S,
            width=max(1, runner.settings.request_concurrency),
        )
        if not begun:
            self._over(runner, reservation, Answer.FAILED)
        return begun

    def _poll_and_settle(self, runner: Runner, reservation: str, *, held: bool) -> None:
        done = False
        try:
            self._poll(runner, reservation, held=held)
            done = True
        finally:
            if not done:  # whatever went wrong: the slot and the runner's turn are given back
                self._over(runner, reservation, Answer.FAILED)

    def _poll(self, runner: Runner, reservation: str, *, held: bool) -> None:
        token, known = self._last_update.get(runner.key, ("", None))
        session = self.session_of(runner)
        result = self.server_of(runner).request_job(
            token=runner.token,
            system_id=self.me,
            info=self.info_of(runner),
            last_update=known if held and token == runner.token else None,
            session=session,
            runner=runner.short_token,
            cancel=self.cancel,
        )
        last_update = getattr(result, "last_update", None)
        if last_update:
            self._last_update[runner.key] = (runner.token, last_update)
        retriable = bool(getattr(result, "retriable_seen", False))
        wait_s = getattr(result, "retry_after_s", None)
        match result:
            case JobOffer():
                told = result.payload.job_info
                self.watcher.taken(
                    runner, told.time_in_queue_seconds or 0.0, told.project_jobs_running_on_instance_runners_count or ""
                )
                taken = self.acknowledger.take(result, runner, reservation, session=session)
                self._over(runner, None if taken else reservation, Answer.JOB, retriable=retriable)
            case BrokenOffer():
                self.acknowledger.refuse(result, runner)
                self._over(runner, reservation, Answer.JOB, retriable=retriable)
            case NoJob():
                self._over(runner, reservation, Answer.NO_JOB, retriable=retriable)
            case Forbidden() | Unusable():
                self.watcher.refused(runner)
                log.error("poll_refused", runner=runner.settings.name, url=runner.settings.url, reason=result.reason)
                self._over(runner, reservation, Answer.FORBIDDEN, retriable=retriable)
            case Unavailable():
                log.warning("poll_failed", runner=runner.settings.name, url=runner.settings.url, reason=result.reason)
                self._over(runner, reservation, Answer.FAILED, retriable=retriable, wait_s=wait_s)
            case _:
                self._over(runner, reservation, Answer.NO_JOB)

    def _over(
        self,
        runner: Runner,
        reservation: str | None,
        answer: Answer,
        *,
        retriable: bool = False,
        wait_s: float | None = None,
    ) -> None:
        """A poll has ended: its reservation, unless a job has it, is given back."""
        if reservation is not None:
            self._give_back(reservation)
        now = self.store.clock()
        with self._lock:
            state = self._asks.get(runner.key)
            if state is not None:
                later = None if wait_s is None else now + timedelta(seconds=wait_s)
                after = ended(state, answer, now, retriable_seen=retriable, not_before=later)
                self._asks[runner.key] = after
                if after.unhealthy_until is not None:
                    log.error("runner_unhealthy", runner=runner.settings.name, until=after.unhealthy_until.isoformat())
        if answer is Answer.JOB:  # its taking has hinted at planning
            self.hint("intake")

    def _give_back(self, reservation: str) -> None:
        try:
            self.store.write(lambda tx: leases.give_back(tx, reservation))
        except StoreError as exc:
            # no further poll is begun before it is: see `_settle_late`
            log.warning("reservation_not_given_back", reservation=reservation, error=str(exc))
            with self._lock:
                self._late.append(reservation)

    def _settle_late(self) -> None:
        """Give back what could not be given back while the database was away."""
        with self._lock:
            late, self._late = self._late, []
        try:
            for reservation in late:
                self.store.write(lambda tx, each=reservation: leases.give_back(tx, each))  # type: ignore[misc]
        except StoreError:
            with self._lock:
                self._late += late
            raise
