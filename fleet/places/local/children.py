"""The machine's child processes, reaped by one hand.

A machine adopts everything that its children leave behind (child subreaper), so `waitpid` must take any child, and
nobody else may wait for one: statuses are handed from here to whoever started the child.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A started command: its three pipes, and where its exit code will be put."""

    stdin: int
    stdout: int
    stderr: int
    exit_code: queue.SimpleQueue[int]


class Children:
    """Starts commands and reaps whatever ends below this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[int, tuple[subprocess.Popen[bytes], queue.SimpleQueue[int]]] = {}

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> Child:
        """Start a command in a session of its own.

        Raises:
            OSError: it cannot be started.
        """
        exit_code: queue.SimpleQueue[int] = queue.SimpleQueue()
        # Under the lock: the reaper must not meet a child that is not in the table yet.
        with self._lock:
            popen = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
            self._started[popen.pid] = (popen, exit_code)
        streams = [popen.stdin, popen.stdout, popen.stderr]
        # Descriptors of our own: the relays decide when each is closed.
        fds = [os.dup(stream.fileno()) for stream in streams if stream is not None]
        for stream in streams:
            if stream is not None:
                stream.close()
        return Child(stdin=fds[0], stdout=fds[1], stderr=fds[2], exit_code=exit_code)

    def reap(self) -> None:
        """Take all that have ended; called by one thread, when told that a child has ended."""
        while True:
            with self._lock:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                known = self._started.pop(pid, None)
            if known is not None:
                popen, exit_code = known
                code = os.waitstatus_to_exitcode(status)
                popen.returncode = code
                exit_code.put(code)
