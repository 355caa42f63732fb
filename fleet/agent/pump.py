"""The waiting of a supervisor: output of the job, wakes, ends of children, deadlines; in one poll.

Rule: nothing is asked again and again. Output is taken at once after a pause and otherwise in pieces, 50 ms apart or
as soon as the pipe could be a quarter full at the pace of the last piece: a chatty job costs few wake-ups and a fast
one is not slowed down. What a stage printed before it ended is in the log before its end is.
"""

from __future__ import annotations

import os
import select
import signal
import time

from . import system
from .trace import Trace
from .wakes import Ear

READ_BYTES = 256 * 1024
PIECE_S = 0.05
SHORT_S = 0.002
SHOW_LINE_AFTER_S = 1.0
NEVER = float("inf")


class Pump:
    """Moves output into the trace while it waits."""

    def __init__(self, trace: Trace, ear: Ear, told) -> None:
        self._trace = trace
        self._ear = ear
        self._told = told  # called when the log grew; gives the instant at which it wants to be called again
        self._tell_at = NEVER
        self._show_at = NEVER
        self._next_read_at = 0.0
        self._last_read_at = time.monotonic()
        self._poll = select.poll()
        self._signals, writing = os.pipe()
        for number in (self._signals, writing):
            os.set_blocking(number, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._sources = {}
        self._others = {}
        self.output, self.errors = self._open_pipes()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(ear.number, select.POLLIN)
        self._is_listening = False
        self._listen(wanted=True)

    def _open_pipes(self) -> tuple:
        """Two pipes, so that each line can say which stream it came from; one where that is not told: order is kept."""
        reading, output = system.big_pipe()
        self._sources[reading] = self._trace.output
        if not self._trace.is_stamped:
            return output, output
        reading, errors = system.big_pipe()
        self._sources[reading] = self._trace.errors
        return output, errors

    def give_pipes(self, uid: int, gid: int) -> None:
        """Let the job's user open /dev/stdout and /dev/stderr."""
        for number in {self.output, self.errors}:
            os.fchown(number, uid, gid)

    def also(self, number: int, run, events: int = select.POLLIN) -> None:
        """Run a function when a descriptor can be read, or has been hung up on."""
        self._others[number] = run
        self._poll.register(number, events)

    def no_more(self, number: int) -> None:
        """Wait for a descriptor no longer."""
        if self._others.pop(number, None) is not None:
            self._poll.unregister(number)

    def hurry(self) -> None:
        """A stage begins: its first output is taken without delay."""
        self._next_read_at = 0.0

    def wait(self, until: float) -> bool:
        """Wait for anything; True when something was said to the supervisor (a wake, a signal), False otherwise."""
        now = time.monotonic()
        self._listen(wanted=now >= self._next_read_at)
        wake_at = min(until, self._tell_at, self._show_at, NEVER if self._is_listening else self._next_read_at)
        timeout = None if wake_at == NEVER else max(0.0, wake_at - now) * 1000 + 0.5
        ready = dict(self._poll.poll(timeout))
        is_called = self._hear(ready)
        for number in ready:
            if number in self._sources:
                self._read(number, READ_BYTES)
            elif number in self._others:
                self._others[number]()
        self._pass_time()
        return is_called

    def drain(self) -> None:
        """Take what the pipes hold now, and not what a process that lives on adds meanwhile."""
        for number in self._sources:
            left = system.waiting_bytes(number)
            while left > 0:
                left -= self._read(number, min(left, READ_BYTES)) or left
        self._pass_time()

    def end_stage(self) -> None:
        """Put everything into the log that the stage printed."""
        self.drain()
        self._trace.close_streams()
        self._show_at = NEVER
        self.log_grew()

    def log_grew(self) -> None:
        """The log may have grown by other means than the pipes."""
        self._tell_at = self._told()

    def _listen(self, *, wanted: bool) -> None:
        if wanted == self._is_listening:
            return
        self._is_listening = wanted
        for number in self._sources:
            if wanted:
                self._poll.register(number, select.POLLIN)
            else:
                self._poll.unregister(number)

    def _hear(self, ready: dict) -> bool:
        called = False
        if self._ear.number in ready:
            self._ear.heard()
            called = True
        if self._signals in ready:
            try:
                os.read(self._signals, 4096)
            except BlockingIOError:
                return called
            called = True
        return called

    def _read(self, number: int, size: int) -> int:
        try:
            data = os.read(number, size)
        except BlockingIOError:
            return 0
        if data:
            self._sources[number].write(data)
            self._pace(len(data))
            if self._show_at == NEVER and self._trace.is_holding:
                self._show_at = time.monotonic() + SHOW_LINE_AFTER_S
            self.log_grew()
        return len(data)

    def _pace(self, size: int) -> None:
        """When to read next: see the rule of this file."""
        now = time.monotonic()
        pace = size / max(now - self._last_read_at, 0.0001)
        self._last_read_at = now
        pause = min(PIECE_S, system.PIPE_BYTES / 4 / pace)
        self._next_read_at = now + pause if pause > SHORT_S else 0.0

    def _pass_time(self) -> None:
        now = time.monotonic()
        if now >= self._show_at:
            self._show_at = NEVER
            self._trace.show()
            self.log_grew()
        if now >= self._tell_at:
            self.log_grew()
