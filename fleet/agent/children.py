"""Starts the children of a supervisor: shells of stages, and functions that touch files as the job's user.

Rule: a child is the leader of a session of its own, is in the job's control group, has dropped its rights and carries
the lease in its environment before anything of the job runs in it. What goes wrong before that is told over a pipe
that closes when the shell starts, never by an exception in two processes.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios

from . import system
from .cgroup import JobGroup
from .identity import Identity

NOT_STARTED = 127
PROGRAM = 9  # where a shell on a terminal finds what it is to read first; a plain sh knows numbers of one digit only


class Child:
    """A process that was started, and the pipe on which it says why it could not be what it should."""

    def __init__(self, pid: int, complaint: int) -> None:
        self.pid = pid
        self._complaint = complaint

    def signal(self, number: int) -> None:
        """Signal the child and those of its group."""
        system.send_group(self.pid, number)

    def complaint(self) -> str:
        """What stood in its way, once it has ended; empty when it started as it should."""
        try:
            text = os.read(self._complaint, 4096)
        except BlockingIOError:
            text = b""
        os.close(self._complaint)
        return text.decode("utf-8", "replace")


class Launcher:
    """What all children of one job have in common."""

    def __init__(self, identity: Identity, group: JobGroup, output: int, errors: int) -> None:
        self._identity = identity
        self._group = group
        self._output = output
        self._errors = errors

    def shell(  # noqa: PLR0917  they are what a process has
        self, arguments: list, script: int, environment: dict, folder: str, extra: tuple = (), enter=lambda: None
    ) -> Child:
        """Start a shell that reads its program from an open file; `extra` are descriptors that it inherits.

        `enter` is called in the child, before it goes to the folder.
        """
        program = system.find_program(arguments[0], environment.get("PATH", system.STANDARD_PATH)) or arguments[0]

        def run() -> None:
            for number in extra:
                os.set_inheritable(number, True)
            enter()
            _enter(folder)
            os.execve(program, arguments, environment)

        if self._identity.drops:  # so that /dev/stdin can be opened
            os.fchown(script, self._identity.uid, self._identity.gid)
        return self._start(run, script)

    def on_terminal(self, arguments: list, program: int, environment: dict, folder: str, slave: int) -> Child:
        """Start a shell on a terminal that becomes its own; it finds its program under the number PROGRAM."""
        path = system.find_program(arguments[0], environment.get("PATH", system.STANDARD_PATH)) or arguments[0]

        def run() -> None:
            os.dup2(program, PROGRAM)
            _enter(folder)
            os.execve(path, arguments, environment)

        if self._identity.drops:
            os.fchown(program, self._identity.uid, self._identity.gid)
            os.fchown(slave, self._identity.uid, self._identity.gid)
        return self._start(run, None, terminal=slave)

    def function(self, run, terminal: int | None = None) -> Child:
        """Run a function as the job's user, perhaps on a terminal of its own; what it raises becomes the complaint."""
        return self._start(run, None, terminal)

    def program(self, run, extra: tuple = ()) -> Child:
        """Run a function as the job's user; it returns the exit code. `extra` are descriptors that it may hand on."""

        def end() -> None:
            for number in extra:
                os.set_inheritable(number, True)
            os._exit(run())

        return self._start(end, None)

    def _start(self, run, stdin: int | None, terminal: int | None = None) -> Child:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        pid = os.fork()
        if pid:
            os.close(writing)
            return Child(pid, reading)
        try:
            self._become(stdin, terminal)
            run()
            os._exit(0)
        except BaseException as exc:  # noqa: BLE001  a forked child must never return into the supervisor's code
            os.write(writing, describe(exc).encode("utf-8", "replace")[:4000])
        finally:
            os._exit(NOT_STARTED)

    def _become(self, stdin: int | None, terminal: int | None) -> None:
        os.setsid()
        self._group.join()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            for number in (0, 1, 2):
                os.dup2(terminal, number)
        else:
            os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
            os.dup2(self._output, 1)
            os.dup2(self._errors, 2)
        self._identity.become()


def _enter(folder: str) -> None:
    os.chdir(folder)
    os.environ["PWD"] = folder


def describe(exc: BaseException) -> str:
    """An error as a sentence."""
    if isinstance(exc, OSError) and exc.strerror:
        return "%s: %s" % (exc.filename, exc.strerror) if exc.filename else exc.strerror
    return "%s: %s" % (type(exc).__name__, exc)


def exit_code(status: int) -> int:
    """A wait status as a shell tells it: 128 and the signal's number for a process that was ended by one."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)
