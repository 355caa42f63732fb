"""The supervisor: runs the stages of one job, in a process of its own, from `start` to its result.

Rule: whatever happens in it or to the job, a result is written and nothing of the job runs on. It asks nobody: what may
run is told by `stages.py`, time is the machine's monotonic clock, and word from the manager lies in `control`.
"""

from __future__ import annotations

import os
import signal
import time

from . import leftovers, stages, system, uses
from .cgroup import JobGroup
from .children import Child, Launcher, describe
from .control import Control
from .home import discard, write_json
from .identity import Identity
from .leases import Lease
from .manners import manner_of
from .pump import Pump
from .running import Limits, Running
from .signing import SignDesk
from .stages import Ending
from .telling import Teller
from .terminal_desk import TerminalDesk
from .trace import Trace
from .wakes import Doors, Ear

TRANSFERS = frozenset({stages.RESTORE_CACHE, stages.DOWNLOAD_ARTIFACTS, stages.ARCHIVE_CACHE, stages.UPLOAD_ARTIFACTS})
CLEANUP_S = 120.0
LONGEST_RETRY_DELAY_S = 300.0
BEING_REMOVED_S = 0.05


class Supervisor:
    """One job."""

    def __init__(self, lease: Lease, job: dict, identity: Identity, remaining_s: float) -> None:
        self._lease = lease
        self._job = job
        self._identity = identity
        self._state = {"pid": os.getpid(), "started": system.start_time(os.getpid()), "state": "running", "stage": None}
        self._save()
        self._ear = Ear(lease.wake)
        self._trace = Trace(lease.log, job["trace"])
        self._teller = Teller(Doors(lease.home.serve), lease.name, self._trace.log)
        self._control = Control(lease.control)
        self._pump = Pump(self._trace, self._ear, self._teller.log_grew)
        if identity.drops:
            self._pump.give_pipes(identity.uid, identity.gid)
        self._group = JobGroup(lease.name, is_root=os.geteuid() == 0)
        self._launcher = Launcher(identity, self._group, self._pump.output, self._pump.errors)
        self._limits = Limits(job, time.monotonic() + remaining_s, remaining_s)
        self._running = Running(self._pump, self._control, self._limits, job.get("abort_grace_s", 10))
        self._manner = manner_of(job, lease, identity, self._launcher, self._running, self._trace)
        self._is_in_order = not job.get("containers")
        self._holds = uses.Holds(lease.home)
        self._progress = stages.Progress()
        self._desk = None
        self._adopts = False
        self._transfers = loaded_transfers(job)
        self._terminals = TerminalDesk(lease, self._pump, self._teller.tell, self._manner)
        self._control.on_read(self._terminals.look)

    def run(self) -> None:
        """All of the job; the result is written when this returns."""
        self._adopts = system.adopt_orphans()
        self._group.leave_session()
        self._group.make()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._control.be_told_to_end)
        try:
            self._run_job()
            result = self._control.result() or stages.result(
                self._progress, self._state["stage"], self._control.abort_reason
            )
        except Exception as exc:  # noqa: BLE001  the supervisor's own fault must end as a result, not as silence
            result = self._own_fault(exc)
        self._end(result)

    def _run_job(self) -> None:
        self._control.read()
        made = self._hold_things() or self._manner.prepare()
        if not made.is_good:
            self._progress.record({"kind": stages.PREPARE, "name": "prepare"}, made)
        self._terminals.begin()
        last = None
        for stage in self._job["stages"]:
            if stage["kind"] == stages.CLEANUP:
                self._end_terminals()
                leftovers.end_descendants()
            if (stage.get("script") or stage.get("transfer")) and self._progress.admits(stage):
                self._run_stage(stage)
                last = stage["name"]
        self._state["stage"] = last
        self._end_terminals()
        leftovers.end_descendants()
        self._remove_files()
        self._is_in_order = self._manner.finish()

    def _hold_things(self) -> Ending | None:
        """Keep what the job uses of earlier ones from being pruned; what cut the wait for it short."""
        for thing in uses.things_of(self._job):
            uses.watch_disk(self._lease.home, thing.root)
            while not self._holds.take(thing):
                cut = self._running.pause(BEING_REMOVED_S, {"kind": stages.PREPARE, "name": "prepare"})
                if cut is not None:
                    return cut
        return None

    def _run_stage(self, stage: dict) -> None:
        self._state["stage"] = stage["name"]
        self._save()
        if stage.get("section"):
            self._trace.open_section(stage["name"], stage.get("title") or stage["name"])
        self._pump.hurry()
        if stage["kind"] == stages.STEP:
            self._limits.begin_script()
            self._teller.hurry()
        else:
            self._pump.log_grew()
        ending = self._attempts(stage)
        self._progress.record(stage, ending)
        self._explain(stage, ending)
        if stage.get("section"):
            self._trace.close_section(stage["name"])
        self._pump.log_grew()

    def _attempts(self, stage: dict) -> Ending:
        """Run a stage as often as it may be tried."""
        attempts = max(1, int(stage.get("attempts") or 1))
        delay_s = float(stage.get("retry_delay_s", 5.0))
        for attempt in range(1, attempts + 1):
            ending = self._run_once(stage)
            if ending.how != stages.EXITED or ending.is_good or attempt == attempts:
                return ending
            self._trace.warn(
                "%s failed: %s. Attempt %d of %d follows" % (stage["name"], ending.message, attempt + 1, attempts)
            )
            interrupted = self._running.pause(delay_s, stage)
            if interrupted is not None:
                return interrupted
            delay_s = min(delay_s * 2, LONGEST_RETRY_DELAY_S)
            if stage.get("before_retry"):
                self._run_script(stage, stage["before_retry"])
        return ending

    def _run_once(self, stage: dict) -> Ending:
        if not stage.get("transfer"):
            return self._run_script(stage, stage["script"])
        refused = self._running.refuse(stage)
        if refused is not None:
            return refused
        told, extra = self._surroundings(stage)
        environment = {**self._identity.environment(), **told}

        def transfer() -> int:
            os.environ.update(environment)  # over the machine's own, which names its proxies
            tree = self._manner.enter(stage)
            return self._transfers.run(stage["transfer"], tree)

        return self._running.wait_for(self._launcher.program(transfer, extra), stage)

    def _run_script(self, stage: dict, script: str) -> Ending:
        refused = self._running.refuse(stage)
        if refused is not None:
            return refused
        while True:
            ending = self._manner.judge(stage, self._running.wait_for(self._start(stage, script), stage))
            if not self._manner.repeats(stage, ending):
                return ending

    def _start(self, stage: dict, script: str) -> Child:
        environment, extra = self._surroundings(stage)
        return self._manner.start(stage, script, environment, extra)

    def _surroundings(self, stage: dict) -> tuple:
        """What a stage is told in its environment, and the descriptors that it inherits."""
        environment = {
            "CI_JOB_STATUS": self._progress.job_status(stage["kind"]),
            "FLEET_LEASE": self._lease.name,
            "PWD": self._job["cwd"],
        }
        extra = ()
        if stage["kind"] in TRANSFERS:
            desk = self._open_desk()
            environment.update(desk.environment())
            extra = desk.descriptors
        return environment, extra

    def _end_terminals(self) -> None:
        """Let the terminals that may hold the job do so, then end them all."""
        hold_s = self._terminals.hold_s
        if hold_s:
            self._trace.say("A terminal is open: the job waits for it, for %s at most" % stages.duration(hold_s))
            self._pump.log_grew()
            self._manner.keep(hold_s)
            cause = self._running.pause(
                hold_s, {"kind": stages.PREPARE, "name": "terminal"}, wanted=lambda: self._terminals.hold_s > 0
            )
            if cause is not None:
                self._trace.say("The terminal is closed: %s" % cause.message)
            elif self._terminals.hold_s:
                self._trace.say("The terminal is closed: its time is over")
        self._terminals.end_all("the job is over")

    def _open_desk(self) -> SignDesk:
        if self._desk is None:
            self._desk = SignDesk(self._lease, self._teller.tell)
            self._pump.also(self._desk.asking, self._desk.hear)
            self._control.on_read(self._desk.deliver)
        return self._desk

    def _explain(self, stage: dict, ending: Ending) -> None:
        """Say in the log what the result of the job will not say."""
        if ending.is_good:
            return
        failure = self._progress.failure
        if failure is None or failure.message != ending.message:
            self._trace.warn("%s failed, the job goes on: %s" % (stage["name"], ending.message))

    def _remove_files(self) -> None:
        paths = self._job.get("cleanup_paths") or []
        if not paths:
            return
        child = self._manner.remove(paths)
        ending = self._running.wait_for(child, {"kind": stages.CLEANUP, "name": "cleanup", "timeout_s": CLEANUP_S})
        if not ending.is_good:
            self._trace.warn("some files of the job were not removed: %s" % ending.message)

    def _own_fault(self, exc: Exception) -> dict:
        message = "the agent's supervisor failed: %s" % describe(exc)
        leftovers.end_descendants()
        return {
            "outcome": "failed",
            "reason": "runner_system_failure",
            "exit_code": 0,
            "message": message,
            "stage": self._state["stage"],
        }

    def _end(self, result: dict) -> None:
        is_clean = leftovers.end_descendants() and self._is_in_order and self._group.remove(leftovers.WITHIN_S)
        if not is_clean:
            self._trace.warn("some processes of the job could not be ended")
        self._pump.end_stage()
        self._holds.close()
        discard(self._lease.reserve)  # the last words have room, though the disk is full
        self._trace.log.finish()
        self._state.update(
            state="exited",
            result=result,
            is_clean=is_clean and self._adopts,  # else `clean` looks for what left us by its environment
            log_bytes=self._trace.log.size,
            crc32=self._trace.log.crc32,
        )
        self._save()
        self._trace.log.close()
        self._teller.tell()
        self._ear.close()

    def _save(self) -> None:
        """Write the state; a stage that a full disk keeps from being told is no reason to end the job."""
        try:
            write_json(self._lease.state, self._state)
        except OSError:
            if self._state["state"] != "running" or not os.path.exists(self._lease.state):
                raise


def loaded_transfers(job: dict):
    """The code for transfers if the job has any: read now, for the agent's file may be another one later."""
    if not any(stage.get("transfer") for stage in job["stages"]):
        return None
    from . import transfer  # noqa: PLC0415  jobs without transfers start sooner without it

    return transfer
