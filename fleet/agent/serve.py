"""`agent serve`: one channel to a manager.

Rule: one loop, one poll, nothing asked again and again: requests come on standard input, wakes from supervisors on a
named pipe, ends of children by signal. What is waiting to be written is bounded: no data is read from a log and no
request is taken while the manager does not read. When standard input ends the process ends; the jobs go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

from . import cgroup, facts
from .errors import BrokenFrame
from .frames import Decoder, encode
from .home import Home
from .requests import Requests
from .terminals import Terminals
from .wakes import Ear

HEARTBEAT_S = 20.0
READ_BYTES = 256 * 1024
WAITING_LIMIT = 1024 * 1024
NEVER = float("inf")


class Serve:
    """The loop."""

    def __init__(self, home: Home, incoming: int = 0, outgoing: int = 1) -> None:
        self._home = home
        self._in = incoming
        self._out = outgoing
        self._decoder = Decoder()
        self._waiting = bytearray()
        self._follows = {}
        self._tasks = {}
        self._watched = {}
        self._terminals = Terminals(self._send)
        self._requests = Requests(home, self._follows, self._tasks, self._send, self._terminals)
        self._ear = Ear(os.path.join(home.serve, "%d" % os.getpid()))
        self._poll = select.poll()
        self._asked = {}
        self._signals, writing = os.pipe()
        for number in (self._signals, writing, incoming, outgoing):
            os.set_blocking(number, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._heartbeat_at = time.monotonic() + HEARTBEAT_S
        self._is_open = True

    def run(self) -> None:
        """Serve until the manager closes the channel."""
        self._send(facts.hello(self._home))
        try:
            while self._is_open:
                self._turn()
        except BrokenFrame as exc:
            sys.stderr.write("fleet-agent: %s; the channel ends\n" % exc)
        except (BrokenPipeError, ConnectionResetError):
            sys.stderr.write("fleet-agent: the manager is gone\n")
        finally:
            self._ear.close()
            self._terminals.close()
            for task, _ in self._tasks.values():
                task.stop()

    def _turn(self) -> None:
        self._fill()
        self._ask_poll()
        now = time.monotonic()
        deadline = min(self._heartbeat_at, self._terminals.deadline())
        due = min([deadline, *(task.deadline for task, _ in self._tasks.values())])
        ready = dict(self._poll.poll(max(0.0, due - now) * 1000 + 0.5))
        if self._out in ready:
            self._flush()
        if self._ear.number in ready:
            self._listen()
        for number in set(ready) & set(self._watched):
            self._supervisor_ended(number)
        self._tend(ready)
        self._terminals.tend(ready)
        if self._in in ready:
            self._read()
        if time.monotonic() >= self._heartbeat_at:
            self._beat()

    def _ask_poll(self) -> None:
        """What to wait for now: an exact set, changed only where it differs."""
        wanted = {self._ear.number: select.POLLIN, self._signals: select.POLLIN}
        if len(self._waiting) < WAITING_LIMIT:
            wanted[self._in] = select.POLLIN
        if self._waiting:
            wanted[self._out] = wanted.get(self._out, 0) | select.POLLOUT
        self._watched = {follow.watch: follow for follow in self._follows.values() if follow.watch is not None}
        talking = [number for number, (task, _) in self._tasks.items() if not task.is_silent]
        for number in (*self._watched, *talking):
            wanted[number] = select.POLLIN
        wanted.update(self._terminals.wanted(may_read=len(self._waiting) < WAITING_LIMIT))
        for number in set(self._asked) - set(wanted):
            self._poll.unregister(number)
        for number, events in wanted.items():
            if self._asked.get(number) != events:
                self._poll.register(number, events)
        self._asked = wanted

    def _send(self, head: dict, body: bytes = b"") -> None:
        self._waiting += encode(head, body)

    def _fill(self) -> None:
        """Take one frame of each followed job in turn, while nothing else waits."""
        while not self._waiting:
            sent = False
            for name in list(self._follows):
                follow = self._follows[name]
                frame = follow.frame() if follow.has_something else None
                if frame is not None:
                    self._waiting += frame
                    sent = True
                if follow.is_over:
                    follow.close()
                    del self._follows[name]
            if not sent:
                return
            self._flush()

    def _flush(self) -> None:
        try:
            written = os.write(self._out, self._waiting)
        except BlockingIOError:
            return
        del self._waiting[:written]

    def _listen(self) -> None:
        names, lost = self._ear.heard()
        for name in list(self._follows) if lost else names & set(self._follows):
            self._follows[name].refresh()
        self._terminals.look(None if lost else names)

    def _supervisor_ended(self, number: int) -> None:
        follow = self._watched[number]
        if follow.watch == number:
            os.close(number)
            follow.watch = None
            follow.refresh(force=True)

    def _tend(self, ready: dict) -> None:
        """Let tasks go on: output, ends, deadlines."""
        if self._signals in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals, 4096)
        for number, (task, request) in list(self._tasks.items()):
            if number in ready:
                task.read()
            fields = task.check()
            if fields is not None:
                del self._tasks[number]
                self._requests.reply(request, fields)

    def _read(self) -> None:
        try:
            data = os.read(self._in, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._is_open = False
            return
        for head, body in self._decoder.feed(data):
            self._requests.take(head, body)

    def _beat(self) -> None:
        """Tell that the machine lives; look for supervisors that ended unseen."""
        self._heartbeat_at = time.monotonic() + HEARTBEAT_S
        if len(self._waiting) < WAITING_LIMIT:
            self._send({"type": "heartbeat", **facts.pulse(self._home)})
        for follow in self._follows.values():
            if follow.watch is None:
                follow.refresh(force=True)


def serve(home: Home) -> None:
    """Serve on standard input and output."""
    home.make()
    cgroup.sweep(is_root=os.geteuid() == 0)
    Serve(home).run()
