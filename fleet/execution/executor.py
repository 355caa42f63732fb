"""The controller of jobs: looks at every open job of this manager and hands on what each needs next.

It decides by the rows alone, so it does the same for a job that was received a second ago, one that a killed manager
left behind, and one that another manager ran until now.

    waiting    a stop, or too long without a machine       -> ended
    starting   leased                                      -> `start` (again, until the agent has taken it)
    running    not followed                                -> `follow` from where the spool ends
               a stop                                      -> `cancel` or `abort`
               its machine is lost                         -> ended as runner_system_failure
    finishing  its spool is whole, its lost machine gone   -> told to GitLab
    lease cleaning                                         -> `clean`, then the slot is free; for too long: lost
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from fleet.execution import asked, cleanup, ending, running, starting
from fleet.execution.desk import Desk
from fleet.execution.follows import Follow, Follows
from fleet.execution.overdue import give_up_uncleaned
from fleet.execution.terminals import Terminals
from fleet.gitlab.failure_reasons import FailureReason
from fleet.model.job import Lease, Outcome
from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.store import leases
from fleet.store.worklist import Work, work_of

log = structlog.get_logger(__name__)
LANE_S = 400.0
SIGN_S = 110.0  # after two minutes the job goes on without


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What one activation saw."""

    open: int = 0
    starting: int = 0
    running: int = 0
    followed: int = 0
    finishing: int = 0
    cleaning: int = 0


@dataclass(slots=True, kw_only=True)
class Executor:
    """The controller of jobs, and the handler of what the channels deliver."""

    desk: Desk
    follows: Follows = field(init=False)
    terminals: Terminals = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stops_told: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.follows = Follows(self.desk.spool, self)
        self.terminals = Terminals(self.desk)
        self.desk.channels.connect(self._take, self.channel_ended)

    def activate(self) -> Executed:
        """Look at every open job once."""
        desk = self.desk
        found, cleaning, now = desk.store.read(
            lambda tx: (work_of(tx, desk.me), leases.cleaning_leases(tx, desk.me), tx.now)
        )
        watched = desk.reports.watched()
        for work in found:
            if work.state is JobState.RECEIVED:
                continue  # intake is about to acknowledge it
            if work.key not in watched and work.stop != "abort":  # GitLab took it away: it hears no more of it
                self._watch(work)
            self._look(work, now)
        for lease in cleaning:
            self._clean(lease)
        give_up_uncleaned(desk, cleaning, now)
        self._forget({work.key for work in found}, watched)
        states = [work.state for work in found]
        return Executed(
            open=len(found),
            starting=states.count(JobState.STARTING),
            running=states.count(JobState.RUNNING),
            followed=self.follows.count(),
            finishing=states.count(JobState.FINISHING),
            cleaning=len(cleaning),
        )

    def start_over(self) -> None:
        """Forget what was in hand: our claims were lost for a while, so the rows alone say what is ours."""
        self.follows.clear()
        for key in self.desk.reports.watched():
            self.desk.reports.drop(key)
            self.desk.spool.let_go(key)
        self._stops_told.clear()

    def _watch(self, work: Work) -> None:
        found = ending.load_with_payload(self.desk, work.key)
        if found is not None and found[0].epoch == work.epoch:  # else another manager has it by now
            self.desk.reports.watch(*found)

    def _forget(self, open_keys: set[str], watched: set[str]) -> None:
        """Jobs that are ours no more: another manager has taken them over, or they have ended."""
        for key in watched - open_keys:
            self.desk.reports.drop(key)
            self.desk.spool.let_go(key)
        for key in [key for key in self._stops_told if key not in open_keys]:
            del self._stops_told[key]

    def _look(self, work: Work, now: datetime) -> None:
        match work.state:
            case JobState.WAITING:
                self._look_at_waiting(work, now)
            case JobState.STARTING:
                self._look_at_starting(work)
            case JobState.RUNNING:
                self._look_at_running(work)
            case JobState.FINISHING:
                self._look_at_finishing(work, now)

    def _look_at_waiting(self, work: Work, now: datetime) -> None:
        pool = self.desk.book.pools.get(work.pool)
        limit_s = pool.settings.instance_acquire_timeout_s if pool else 900.0
        waited_s = (now - work.received_at).total_seconds()
        if work.stop:
            self._end_unstarted(work, _stopped(work.stop))
        elif now >= work.deadline_at:
            message = "the job's time ran out while it waited for a machine"
            self._end_unstarted(work, _failed(FailureReason.JOB_EXECUTION_TIMEOUT, message))
        elif waited_s > limit_s:
            message = f"no machine within instance_acquire_timeout ({limit_s:g} s); see: fleetctl explain"
            self._end_unstarted(work, _failed(FailureReason.RUNNER_SYSTEM_FAILURE, message))

    def _look_at_starting(self, work: Work) -> None:
        if work.lease_state is LeaseState.LOST:
            message = f"the machine {work.instance} was lost before it answered; whether the job began is unknown"
            self._end_unstarted(work, _failed(FailureReason.RUNNER_SYSTEM_FAILURE, message))
        elif work.stop and not work.maybe_started:
            self._end_unstarted(work, _stopped(work.stop))
        else:
            self._in_lane(work, "start", lambda: starting.start(self.desk, self.follows, work))

    def _look_at_running(self, work: Work) -> None:
        if work.lease_state is LeaseState.LOST:
            self._in_lane(work, "lost", lambda: running.end_lost(self.desk, self.follows, work))
            return
        if work.lease and not self.follows.is_followed(work.lease):
            self._in_lane(work, "follow", lambda: running.follow(self.desk, self.follows, work))
        if work.stop and self._stops_told.get(work.key) != work.stop:
            self._in_lane(work, f"stop-{work.stop}", lambda: self._tell_stop(work))

    def _tell_stop(self, work: Work) -> None:
        assert work.stop is not None
        if running.tell_stop(self.desk, work):
            self._stops_told[work.key] = work.stop

    def _look_at_finishing(self, work: Work, now: datetime) -> None:
        if work.lease_state is LeaseState.LOST and not _is_fenced(work, now):
            return  # GitLab may hand the job to somebody else only when this machine can do no more for it
        if work.lease and self.follows.is_followed(work.lease):
            return  # its exit is being worked on, or its log is on its way
        self.desk.submit(
            f"finish:{work.key}", "finish", lambda: running.finish(self.desk, self.follows, work), timeout_s=LANE_S
        )

    def _clean(self, lease: Lease) -> None:
        self.desk.submit(
            f"instance:{lease.instance}",
            f"clean:{lease.lease_id}",
            lambda: cleanup.clean(self.desk, self.follows, lease),
            timeout_s=LANE_S,
        )

    def _in_lane(self, work: Work, what: str, do: Any) -> None:
        self.desk.submit(f"instance:{work.instance}", f"{what}:{work.key}", do, timeout_s=LANE_S)

    def _end_unstarted(self, work: Work, outcome: Outcome) -> None:
        def end() -> None:
            found = ending.load(self.desk, work.key)
            if found is not None and found.epoch == work.epoch and found.state is work.state:
                ending.end_unstarted(self.desk, found, outcome)

        self.desk.submit(f"finish:{work.key}", "end", end, timeout_s=LANE_S)

    # what the channels deliver

    def _take(self, instance_id: str, head: Mapping[str, Any], body: bytes) -> None:
        self.follows.take(instance_id, head, body)
        self.terminals.take(instance_id, head, body)

    def grew(self, key: str) -> None:
        """There is more of this job's trace."""
        self.desk.reports.grew(key)

    def exited(self, follow: Follow, frame: Mapping[str, Any]) -> None:
        """The job has ended on its machine."""
        told = dict(frame)
        taken = self.desk.submit(
            f"instance:{follow.instance}", f"exit:{follow.key}", lambda: self._end(follow, told), timeout_s=LANE_S
        )
        if not taken:
            self.follows.drop(follow.lease)  # followed again, it says so again

    def asked(self, follow: Follow, frame: Mapping[str, Any]) -> None:
        """The job asks for fresh addresses of its caches."""
        told = dict(frame)
        self.desk.submit(
            f"sign:{follow.instance}",
            f"sign:{follow.lease}:{told.get('sign')}",
            lambda: asked.answer(self.desk, follow, told),
            timeout_s=SIGN_S,
            width=4,
        )

    def _end(self, follow: Follow, frame: Mapping[str, Any]) -> None:
        done = False
        try:
            running.exited(self.desk, self.follows, follow, frame)
            done = True
        finally:
            if not done:  # the store was away, perhaps: the next activation follows anew
                self.follows.drop(follow.lease)

    def broken(self, follow: Follow) -> None:
        """The spool took no more: follow again when it may."""
        log.warning("follow_stopped", job_key=follow.key, reason=follow.stopped)

    def channel_ended(self, instance_id: str, reason: str) -> None:
        """A channel has ended: its jobs go on, and are followed again over the next one."""
        dropped = self.follows.drop_instance(instance_id)
        self.terminals.drop_instance(instance_id, reason)
        log.info("channel_ended", instance=instance_id, reason=reason, jobs=dropped)
        self.desk.hint("keep", "execute")


def _is_fenced(work: Work, now: datetime) -> bool:
    if work.instance_state in (None, InstanceState.GONE):
        return True
    return work.instance_by is not None and now >= work.instance_by


def _failed(reason: FailureReason, message: str) -> Outcome:
    return Outcome(state="failed", failure_reason=str(reason), message=message)


def _stopped(stop: str) -> Outcome:
    if stop == "interrupt":
        return _failed(FailureReason.RUNNER_INTERRUPTED, "the runner was stopped before the job began")
    return _failed(FailureReason.JOB_CANCELED, "the job was canceled before it began")
