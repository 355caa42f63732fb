"""Waits for one child of a supervisor: to its end, or to the first of the things that end it.

Rule: whatever ends a stage, its process group gets SIGTERM, after the grace SIGKILL, and SIGKILL again when its
leader has ended; the job goes on also when a process cannot be killed. An abort beats the job's time-out, that the
script's and the stage's, those a cancel.
"""

from __future__ import annotations

import os
import signal
import time

from . import stages, system
from .children import Child, exit_code
from .control import Control
from .pump import Pump
from .stages import Ending, duration

NEVER = float("inf")
UNKILLABLE_S = 30.0
CLEANUP_S = 120.0


class Limits:
    """The deadlines of a job."""

    def __init__(self, job: dict, job_deadline: float, remaining_s: float) -> None:
        self._job_deadline = job_deadline
        self._job_s = job.get("timeout_s") or remaining_s
        self._script_s = job.get("script_timeout_s")
        self._script_deadline = NEVER

    def begin_script(self) -> None:
        """The first step begins; the others share its time."""
        if self._script_s and self._script_deadline == NEVER:
            self._script_deadline = time.monotonic() + self._script_s

    def of(self, stage: dict) -> list:
        """(deadline, how it ends, message) for a stage that begins now; the weightiest first."""
        name, own_s = stage["name"], stage.get("timeout_s")
        if stage["kind"] == stages.CLEANUP:
            own_s = own_s or CLEANUP_S
        limits = []
        if stage["kind"] != stages.CLEANUP:
            message = "execution took longer than %s seconds" % duration(self._job_s)
            limits.append((self._job_deadline, stages.JOB_TIMED_OUT, message))
        if stage["kind"] == stages.STEP and self._script_s:
            message = "the script took longer than %s (RUNNER_SCRIPT_TIMEOUT)" % duration(self._script_s)
            limits.append((self._script_deadline, stages.SCRIPT_TIMED_OUT, message))
        if own_s:
            message = "%s took longer than %s" % (name, duration(own_s))
            limits.append((time.monotonic() + own_s, stages.TIMED_OUT, message))
        return limits


class Running:
    """Waits for children."""

    def __init__(self, pump: Pump, control: Control, limits: Limits, grace_s: float) -> None:
        self._pump = pump
        self._control = control
        self._limits = limits
        self._grace_s = grace_s

    def refuse(self, stage: dict) -> Ending | None:
        """Why a stage should not even begin."""
        return self._cause(stage, self._limits.of(stage))

    def pause(self, seconds: float, stage: dict, *, wanted=lambda: True) -> Ending | None:
        """Wait, as long as that is wanted; what cut the wait short."""
        until = time.monotonic() + seconds
        limits = self._limits.of({**stage, "timeout_s": None})
        while wanted() and time.monotonic() < until:
            cause = self._cause(stage, limits)
            if cause is not None:
                return cause
            self._wait(min([until, *(deadline for deadline, _, _ in limits)]))
        return None

    def wait_for(self, child: Child, stage: dict) -> Ending:
        """The end of a child; its output is in the log and its process group is gone when this returns."""
        limits = self._limits.of(stage)
        cause, status, kill_at, give_up_at = None, None, NEVER, NEVER
        while status is None:
            now = time.monotonic()
            worse = self._cause(stage, limits)
            if worse is not None and (cause is None or (worse.how == stages.ABORTED != cause.how)):
                cause = worse
                kill_at = min(kill_at, now + self._grace_s)
                child.signal(signal.SIGTERM)
            if now >= kill_at:
                child.signal(signal.SIGKILL)
                kill_at, give_up_at = NEVER, now + UNKILLABLE_S
            if now >= give_up_at:
                break
            deadlines = [deadline for deadline, _, _ in limits] if cause is None else []
            self._wait(min([kill_at, give_up_at, *deadlines]))
            status = collect(child.pid)
        system.send_group(child.pid, signal.SIGKILL)
        self._pump.end_stage()
        return ending_of(status, child.complaint(), cause)

    def _wait(self, until: float) -> None:
        if self._pump.wait(until):
            self._control.read()

    def _cause(self, stage: dict, limits: list) -> Ending | None:
        """What ends a stage now."""
        kind = stage["kind"]
        if self._control.abort_reason is not None and kind != stages.CLEANUP:
            return Ending(stages.ABORTED, 0, "the job was aborted")
        now = time.monotonic()
        for deadline, how, message in limits:
            if now >= deadline:
                return Ending(how, 0, message)
        if self._control.is_canceled and (kind in stages.BEFORE_STEPS or kind == stages.STEP):
            return Ending(stages.CANCELED, 0, "the job was canceled")
        return None


def collect(pid: int) -> int | None:
    """The wait status of a child if it has ended; orphans that were given to this process are taken note of too."""
    wanted = None
    try:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == pid:
                wanted = status
            if ended == 0:
                return wanted
    except ChildProcessError:
        return wanted if wanted is not None else 0


def ending_of(status: int | None, complaint: str, cause: Ending | None) -> Ending:
    """How a child ended, in the job's words."""
    if cause is not None:
        return cause
    if complaint:
        return Ending(stages.FAILED_TO_START, 0, complaint)
    code = 137 if status is None else exit_code(status)
    return Ending(stages.EXITED, code, "exit code %d" % code if code else "")
