"""Work of `serve` that takes time, done in child processes, so that the channel never waits for it.

Rule: a task ends by itself or at its deadline, and is told once. Its output is kept only as far as its end is wanted.
"""

from __future__ import annotations

import json
import os
import signal
import time

from . import identity, system
from .children import describe, exit_code
from .errors import Refused

OUTPUT_BYTES = 4096
NEVER = float("inf")


class Task:
    """A child whose end makes a reply."""

    def __init__(self, run, done, timeout_s: float | None = None) -> None:
        self._done = done
        self._kept = b""
        self._is_late = False
        self.is_silent = False  # it has closed its output
        self.deadline = time.monotonic() + timeout_s if timeout_s else NEVER
        self.number, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            os.set_blocking(self.number, False)
            return
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for name in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP):
                signal.signal(name, signal.SIG_DFL)
            run(writing)
        finally:
            os._exit(1)

    def read(self) -> bool:
        """Take output; False when there will be no more."""
        try:
            data = os.read(self.number, 65536)
        except BlockingIOError:
            return True
        self._kept = (self._kept + data)[-OUTPUT_BYTES:]
        self.is_silent = not data
        return bool(data)

    def check(self) -> dict | None:
        """The reply's fields once the child has ended; at its deadline it is killed."""
        if time.monotonic() >= self.deadline:
            self._is_late = True
            self.deadline = NEVER
            system.send_group(self.pid, signal.SIGKILL)
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            return None
        for _ in range(64):  # a process left behind may write for ever
            if not self.read() or not system.waiting_bytes(self.number):
                break
        self.stop()
        return self._done(None if self._is_late else exit_code(status), self._kept)

    def stop(self) -> None:
        """End what is left of it."""
        system.send_group(self.pid, signal.SIGKILL)
        os.close(self.number)


def command(text: str, shell: str, timeout_s: float, root: str) -> Task:
    """Run a command of the manager's as the agent's user; it is fed to the shell, not put in an argument list."""
    who = identity.own()
    environment = {**os.environ, **who.environment()}
    program = system.find_program(shell, environment["PATH"])
    if program is None:
        raise Refused("no_shell", "there is no %s on this machine" % shell)
    script = system.nameless_file(text.encode("utf-8", "replace"), root)

    def run(writing: int) -> None:
        os.dup2(script, 0)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.chdir(who.home)
        os.execve(program, [shell], environment)

    def done(code: int | None, output: bytes) -> dict:
        return {"ok": True, "exit_code": code, "output": output.decode("utf-8", "replace")}

    try:
        return Task(run, done, timeout_s)
    finally:
        os.close(script)


def function(run, timeout_s: float | None = None) -> Task:
    """Run a function that may refuse; what it returns, or its refusal, becomes the reply."""

    def report(writing: int) -> None:
        reply = {"ok": True}
        try:
            reply.update(run() or {})
        except Refused as exc:
            reply = {"ok": False, "error": exc.slug, "message": exc.message}
        except OSError as exc:
            reply = {"ok": False, "error": "failed", "message": describe(exc)}
        os.write(writing, json.dumps(reply).encode())

    def done(_code: int | None, output: bytes) -> dict:
        try:
            return json.loads(output)
        except ValueError:
            return {"ok": False, "error": "failed", "message": "it ended without an answer"}

    return Task(report, done, timeout_s)
