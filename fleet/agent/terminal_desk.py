"""Terminals beside the job, as its supervisor has them: a shell on each, with the job's user, variables and folder.

Between `serve` and the supervisor a wish is a file `terminals/NAME.ask`, answered by `NAME.answer`; `NAME.close` ends
it, `NAME.end` says that it has ended. Rule: `serve` made the pseudo-terminal and keeps the outer end; when it closes
that, for whatever reason, the shell and everything in its session is ended. A terminal that was opened with `hold_s`
keeps the job from finishing for so long, within the job's own time.
"""

from __future__ import annotations

import os
import signal
import time

from . import system
from .children import Child, describe, exit_code
from .errors import Refused
from .home import discard, read_json, write_json
from .leases import Lease
from .terminals import NAME

TERMINAL = "FLEET_TERMINAL"  # in the environment of a shell: the terminal's name
NOTHING = 0  # of events: then a hang-up alone is told
UNKNOWN = -1  # no exit code
ENDED_BY_US_S = 5.0
ABOUT_TO_END_S = 0.1
HAS_ENDED, CLOSED = "the shell has ended", "the terminal was closed"


class _Shell:
    """A shell that runs on a terminal."""

    def __init__(self, name: str, slave: int, child: Child, hold_s: float) -> None:
        self.name = name
        self.slave = slave
        self.child = child
        self.hold_s = hold_s


class TerminalDesk:
    """The supervisor's end; how a shell is started is the manner's."""

    def __init__(self, lease: Lease, pump, tell, manner) -> None:
        self._lease = lease
        self._pump = pump
        self._tell = tell
        self._manner = manner
        self._shells = {}
        self._is_open = False

    def begin(self) -> None:
        """The job's folder is there: shells may be started in it from now on."""
        self._is_open = True
        self.look()

    @property
    def hold_s(self) -> float:
        """For how long the open terminals want the job to wait."""
        return max([0.0, *(each.hold_s for each in self._shells.values())])

    def look(self) -> None:
        """Look for wishes, for closings, and for shells that have ended."""
        for name, ending in self._word():
            if ending == ".ask" and self._is_open:
                self._open(name)
            elif ending == ".close":
                self._close(name)
        for shell in list(self._shells.values()):
            code = _ended(shell.child.pid)
            if code is not None:
                self._end(shell, HAS_ENDED, code)

    def end_all(self, reason: str) -> None:
        """The job is over: end every shell, and refuse who still waits for one."""
        for shell in list(self._shells.values()):
            self._end(shell, reason, UNKNOWN)
        for name, ending in self._word():
            if ending == ".ask":
                self._answer(name, {"error": "not_running", "message": reason})

    def _word(self) -> list:
        try:
            found = [os.path.splitext(each) for each in sorted(os.listdir(self._lease.terminals))]
        except OSError:
            return []
        return [(name, ending) for name, ending in found if NAME.match(name)]

    def _open(self, name: str) -> None:
        wish = read_json(os.path.join(self._lease.terminals, name + ".ask"))
        slave = None
        try:
            slave = _slave_of(wish)
            told = {"TERM": wish["term"], "CI_JOB_STATUS": "running", "FLEET_LEASE": self._lease.name, TERMINAL: name}
            child = self._manner.open_shell(slave, told)
        except Refused as exc:
            answer = {"error": exc.slug, "message": exc.message}
        except OSError as exc:
            answer = {"error": "failed", "message": "no shell could be started: %s" % describe(exc)}
        else:
            answer = {"pid": child.pid}
            shell = self._shells[name] = _Shell(name, slave, child, wish["hold_s"])
            self._pump.also(slave, lambda: self._hung_up(shell), events=NOTHING)
        if "error" in answer and slave is not None:
            os.close(slave)
        self._answer(name, answer)

    def _answer(self, name: str, answer: dict) -> None:
        discard(os.path.join(self._lease.terminals, name + ".ask"))
        self._leave(name, ".answer", answer)

    def _leave(self, name: str, ending: str, word: dict) -> None:
        """Leave word for `serve`; a full disk keeps nobody from ending."""
        try:
            write_json(os.path.join(self._lease.terminals, name + ending), word)
        except OSError:
            return
        self._tell()

    def _close(self, name: str) -> None:
        discard(os.path.join(self._lease.terminals, name + ".close"))
        shell = self._shells.get(name)
        if shell is not None:
            self._end(shell, CLOSED, UNKNOWN)

    def _hung_up(self, shell: _Shell) -> None:
        """The outer end was closed; or the shell is about to be gone, at which the kernel hangs up, too."""
        self._pump.no_more(shell.slave)
        code, until = None, time.monotonic() + ABOUT_TO_END_S
        while code is None and time.monotonic() < until:
            code = _ended(shell.child.pid)
            time.sleep(0.002)
        if code is None:
            self._end(shell, CLOSED, UNKNOWN)
        else:
            self._end(shell, HAS_ENDED, code)

    def _end(self, shell: _Shell, reason: str, code: int) -> None:
        if self._shells.pop(shell.name, None) is None:
            return
        self._pump.no_more(shell.slave)
        _end_session(shell.child.pid)
        self._manner.end_shell(shell.name)
        complaint = shell.child.complaint()
        told = {"reason": complaint or reason, "exit_code": None if complaint or code == UNKNOWN else code}
        self._leave(shell.name, ".end", told)
        os.close(shell.slave)


def _slave_of(wish: dict) -> int:
    """The inner end of a terminal that `serve` holds, opened by way of `serve`: its number alone could be another's."""
    through = "/proc/%d/fd/%d" % (wish["pid"], wish["fd"])
    path = through if os.path.isdir("/proc/self/fd") else wish["path"]
    number = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if not os.isatty(number) or not system.is_alive(wish["pid"], wish["started"]):
        os.close(number)
        raise Refused("failed", "who asked for the terminal has gone")
    return number


def _ended(pid: int) -> int | None:
    """The exit code of a shell that has ended (UNKNOWN when somebody else took note of it), None while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return UNKNOWN
    return exit_code(status) if ended else None


def _end_session(leader: int) -> None:
    """End a shell and whatever it has started in its session, job control groups and all."""
    give_up_at = time.monotonic() + ENDED_BY_US_S
    while True:
        found = system.session_members(leader)
        for pid in found:
            system.send(pid, signal.SIGKILL)
        if not found or time.monotonic() > give_up_at:
            return
        time.sleep(0.002)
