"""Terminals beside running jobs: opened on a job's machine over its agent channel, for whoever serves people.

Rule: a terminal reaches the job that it was opened for and no other. Each way at most WINDOW bytes are on their way:
who writes waits until the machine has taken what came before, and the machine waits for who reads. Frames arrive on
the channels' reading threads, so taking one is a put into a queue. What a terminal shows is kept nowhere.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from fleet.execution.desk import Desk, UnknownMachine
from fleet.machine.channel import AgentChannel
from fleet.machine.errors import AgentError, MachineError
from fleet.model.job import Job
from fleet.model.lifecycle import JobState, LeaseState
from fleet.sdk import FleetError
from fleet.store import jobs, leases
from fleet.store.database import Tx

log = structlog.get_logger(__name__)
WINDOW = 256 * 1024
PIECE = 32 * 1024
REQUEST_S = 30.0
TAKE_S = 60.0
NOT_YET = frozenset({JobState.RECEIVED, JobState.WAITING, JobState.STARTING})


class NoTerminal(FleetError):
    """There is no terminal beside this job.

    Attributes:
        may_come: the job is about to run; asking again a moment later may help.
    """

    slug = "no_terminal"

    def __init__(self, message: str, *, may_come: bool = False) -> None:
        super().__init__(message)
        self.may_come = may_come


class Terminal:
    """One open terminal. One thread reads; any may write.

    Attributes:
        reason: why it has ended; None while it is open.
        exit_code: of its shell, once that has ended by itself.
    """

    def __init__(self, name: str, job: Job, instance: str, channel: AgentChannel) -> None:
        self.name = name
        self.job_key = job.key
        self.lease = job.lease
        self.instance = instance
        self.reason: str | None = None
        self.exit_code: int | None = None
        self._channel = channel
        self._output: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._untold = 0
        self._ahead = 0
        self._changed = threading.Condition()

    def read(self, timeout_s: float | None = None) -> bytes | None:
        """What it shows next; empty when nothing came in time, None once it has ended and all was read."""
        self._tell_taken()
        try:
            data = self._output.get(timeout=timeout_s)
        except queue.Empty:
            return b""
        if data is None:
            self._output.put(None)
            return None
        self._untold += len(data)
        return data

    def write(self, data: bytes) -> None:
        """Type something; waits while the machine has not taken what was typed before. Nothing once it has ended."""
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            if not self._finds_room(len(piece)):
                return
            self._send("terminal_data", body=piece)

    def _finds_room(self, size: int) -> bool:
        """Wait until so many bytes more may be on their way; False when it has ended."""
        until = time.monotonic() + TAKE_S
        with self._changed:
            while self.reason is None and self._ahead + size > WINDOW:
                if not self._changed.wait(until - time.monotonic()):
                    self.end("nothing that was typed is read any more", None)
            self._ahead += size
            return self.reason is None

    def resize(self, rows: int, cols: int) -> None:
        """Give it another size."""
        self._send("terminal_resize", rows=rows, cols=cols)

    def close(self) -> None:
        """End the shell and all that it has started."""
        if self.reason is None:
            self._send("terminal_close")
            self.end("it was closed", None)

    # called with what the machine says

    def showed(self, data: bytes) -> None:
        """The machine showed something."""
        if self.reason is None:
            self._output.put(data)

    def took(self, size: int) -> None:
        """The machine took so much of what was typed."""
        with self._changed:
            self._ahead = max(0, self._ahead - size)
            self._changed.notify_all()

    def end(self, reason: str, exit_code: int | None) -> None:
        """It has ended; only the first reason counts."""
        with self._changed:
            if self.reason is None:
                self.reason, self.exit_code = reason, exit_code
                self._output.put(None)
            self._changed.notify_all()

    def _tell_taken(self) -> None:
        if self._untold and self.reason is None:
            self._send("terminal_taken", bytes=self._untold)
        self._untold = 0

    def _send(self, kind: str, *, body: bytes = b"", **fields: Any) -> None:
        try:
            self._channel.send(kind, REQUEST_S, body=body, terminal=self.name, **fields)
        except MachineError as exc:
            self.end(str(exc), None)


class Terminals:
    """The open terminals of this manager. Thread-safe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._open: dict[str, Terminal] = {}

    def open(self, job_key: str, *, rows: int, cols: int, hold_s: float, term: str = "xterm-256color") -> Terminal:
        """Open a terminal beside a job of ours, which waits for it for `hold_s` when it is over otherwise.

        Raises:
            NoTerminal: the job does not run here, or its machine gives none.
        """
        job, lease_state, instance = self._running(job_key)
        if job.state in NOT_YET:
            raise NoTerminal(f"job {job.gitlab_job_id} is {job.state}: it does not run yet", may_come=True)
        if job.state is not JobState.RUNNING or lease_state is not LeaseState.RUNNING or instance is None:
            raise NoTerminal(f"job {job.gitlab_job_id} does not run any more")
        terminal: Terminal | None = None
        try:
            channel = self._desk.channel(instance)
            terminal = Terminal(secrets.token_hex(12), job, instance, channel)
            self._open[terminal.name] = terminal
            channel.request(
                "terminal",
                REQUEST_S,
                lease=job.lease,
                epoch=job.epoch,
                terminal=terminal.name,
                rows=rows,
                cols=cols,
                term=term,
                hold_s=hold_s,
            )
        except (MachineError, UnknownMachine) as exc:
            if terminal is not None:
                self._open.pop(terminal.name, None)
                terminal.close()
            may_come = isinstance(exc, AgentError) and exc.slug_of_agent == "not_yet"
            message = exc.message if isinstance(exc, AgentError) else str(exc)
            raise NoTerminal(f"{instance} opens no terminal: {message}", may_come=may_come) from exc
        log.info("terminal_opened", job_id=job.gitlab_job_id, job_key=job.key, instance=instance)
        return terminal

    def close(self, terminal: Terminal) -> None:
        """End a terminal that was opened here."""
        terminal.close()
        if self._open.pop(terminal.name, None) is not None:
            log.info("terminal_closed", job_key=terminal.job_key, instance=terminal.instance, reason=terminal.reason)

    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def take(self, instance: str, head: Mapping[str, Any], body: bytes) -> None:
        """One frame from a channel."""
        terminal = self._open.get(str(head.get("terminal")))
        if terminal is None or terminal.instance != instance:
            return
        match head.get("type"):
            case "terminal_data" if head.get("lease") == terminal.lease:
                terminal.showed(body)
            case "terminal_taken":
                terminal.took(int(head["bytes"]))
            case "terminal_end" if head.get("lease") == terminal.lease:
                terminal.end(str(head.get("reason") or "it has ended"), head.get("exit_code"))

    def drop_instance(self, instance: str, reason: str) -> None:
        """The channel of this instance has ended, and its terminals with it."""
        for terminal in [each for each in self._open.values() if each.instance == instance]:
            terminal.end(f"the connection to its machine has ended: {reason}", None)

    def _running(self, job_key: str) -> tuple[Job, LeaseState | None, str | None]:
        def look(tx: Tx) -> tuple[Job | None, LeaseState | None, str | None]:
            job = jobs.job(tx, job_key)
            lease = None if job is None or job.lease is None else leases.lease(tx, job.lease)
            return job, None if lease is None else lease.state, None if lease is None else lease.instance

        job, lease_state, instance = self._desk.store.read(look)
        if job is None or job.owner != self._desk.me:
            raise NoTerminal("the job is not this manager's")
        return job, lease_state, instance
