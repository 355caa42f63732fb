"""Terminals beside running jobs, as `serve` has them: the outer end of each pseudo-terminal, and its frames.

Rule: the shell belongs to the job's supervisor, which is asked to start it on a terminal of ours (see
`terminal_desk.py`); so it is the job's in every respect and ends with it. A terminal belongs to the channel that opened
it and ends with that. Both ways at most WINDOW bytes are on their way before the other side has taken them: a slow
reader stops the shell, never the channel.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import termios
import time

from . import control, system
from .errors import Refused
from .home import discard, read_json, write_json
from .leases import Lease

NAME = re.compile(r"[A-Za-z0-9]{1,64}\Z")
MOST = 16
WINDOW = 256 * 1024
READ_BYTES = 32 * 1024
ANSWER_S = 20.0
SILENT_S = 10.0
LOOK_AT_EPOCH_S = 1.0
LARGEST = 4096  # rows or columns
NEVER = float("inf")


class Terminal:
    """One terminal."""

    def __init__(self, lease: Lease, name: str, epoch: int, request: object) -> None:
        self.lease = lease
        self.name = name
        self.epoch = epoch
        self.request = request  # the id of the request that still waits for its reply
        self.answer_by = time.monotonic() + ANSWER_S
        self.epoch_seen_at = time.monotonic()
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        self.waiting = bytearray()  # typed, and not taken by the terminal yet
        self.untold = 0  # bytes the terminal took that the manager was not told of
        self.ahead = 0  # bytes the manager was sent and has not taken
        self.end = None  # what the supervisor said of its end
        self.silent_by = None  # it was hung up on: until when the supervisor may say why

    @property
    def is_readable(self) -> bool:
        """Whether output may be taken from it."""
        return self.request is None and self.silent_by is None and self.ahead < WINDOW

    @property
    def deadline(self) -> float:
        """Until when somebody must have spoken."""
        return self.answer_by if self.request is not None else self.silent_by or NEVER

    def path(self, ending: str) -> str:
        """A file by which `serve` and the supervisor speak of it."""
        return os.path.join(self.lease.terminals, self.name + ending)

    def resize(self, rows: object, columns: object) -> None:
        """Give it a size; what is no size changes nothing."""
        with contextlib.suppress(OSError, TypeError, ValueError, struct.error):
            size = [min(max(int(number), 1), LARGEST) for number in (rows, columns)]
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))

    def forget_slave(self) -> None:
        """The supervisor holds the inner end now."""
        if self.slave is not None:
            os.close(self.slave)
        self.slave = None

    def close(self) -> None:
        """Give back what is open; the kernel hangs up on the shell."""
        self.forget_slave()
        os.close(self.master)


class Terminals:
    """The terminals of one channel."""

    def __init__(self, send) -> None:
        self._send = send
        self._open = {}

    def ask(self, lease: Lease, head: dict) -> None:
        """Ask the supervisor for a shell; the reply follows when it has answered."""
        name = head["terminal"]
        if not isinstance(name, str) or not NAME.match(name) or name in self._open:
            raise Refused("bad_frame", "%r is no name for a new terminal" % (name,))
        if lease.view().state != "running":
            raise Refused("not_running", "the job of lease %s does not run any more" % lease.name)
        if len(self._open) >= MOST:
            raise Refused("failed", "%d terminals are open on this machine: close one first" % MOST)
        terminal = Terminal(lease, name, int(head["epoch"]), head.get("id"))
        try:
            terminal.resize(head.get("rows") or 24, head.get("cols") or 80)
            os.makedirs(lease.terminals, mode=0o700, exist_ok=True)
            wish = {
                "pid": os.getpid(),
                "started": system.start_time(os.getpid()),
                "fd": terminal.slave,
                "path": os.ttyname(terminal.slave),
                "term": str(head.get("term") or "xterm-256color"),
                "hold_s": float(head.get("hold_s") or 0),
            }
            write_json(terminal.path(".ask"), wish)
        except (OSError, ValueError):
            terminal.close()
            raise
        self._open[name] = terminal
        control.wake(lease)

    def take(self, head: dict, body: bytes) -> None:
        """One frame that has no reply."""
        terminal = self._open.get(head.get("terminal"))
        if terminal is None:  # it has ended; the manager is being told
            return
        kind = head["type"]
        if kind == "terminal_data":
            self._typed(terminal, body)
        elif kind == "terminal_resize":
            terminal.resize(head.get("rows"), head.get("cols"))
        elif kind == "terminal_taken":
            terminal.ahead = max(0, terminal.ahead - head.get("bytes", 0))
            self._follow_to_end(terminal)
        elif kind == "terminal_close":
            self._drop(terminal)

    def _typed(self, terminal: Terminal, body: bytes) -> None:
        now = time.monotonic()
        if now > terminal.epoch_seen_at + LOOK_AT_EPOCH_S:
            terminal.epoch_seen_at = now
            if terminal.lease.record().get("epoch", 0) > terminal.epoch:
                self._finish(terminal, {"reason": "another manager commands this job now", "exit_code": None})
                return
        if len(terminal.waiting) + len(body) > WINDOW:
            self._finish(terminal, {"reason": "more was typed than the terminal may hold", "exit_code": None})
            return
        terminal.waiting += body
        self._write(terminal)

    def wanted(self, *, may_read: bool) -> dict:
        """What to wait for: descriptor -> events."""
        found = {}
        for terminal in self._open.values():
            events = select.POLLIN if may_read and terminal.is_readable else 0
            if terminal.waiting and terminal.request is None:
                events |= select.POLLOUT
            if events:
                found[terminal.master] = events
        return found

    def deadline(self) -> float:
        """When to come again without being called."""
        return min([NEVER, *(each.deadline for each in self._open.values())])

    def tend(self, ready: dict) -> None:
        """Move what can be moved, and give up on a supervisor that does not answer."""
        for terminal in list(self._open.values()):
            events = ready.get(terminal.master, 0)
            if events & select.POLLOUT:
                self._write(terminal)
            if events & ~select.POLLOUT and terminal.is_readable:
                self._read(terminal)
            if terminal.name in self._open and time.monotonic() >= terminal.deadline:
                self._give_up(terminal)

    def look(self, names: set | None) -> None:
        """Supervisors left word, perhaps; `names`: of which leases, None: of any."""
        for terminal in list(self._open.values()):
            if names is not None and terminal.lease.name not in names:
                continue
            if terminal.request is not None:
                self._hear_answer(terminal)
            if terminal.name in self._open and terminal.end is None:
                terminal.end = read_json(terminal.path(".end")) or None
                self._follow_to_end(terminal)

    def drop_lease(self, name: str) -> None:
        """The lease is being cleaned."""
        for terminal in [each for each in self._open.values() if each.lease.name == name]:
            self._finish(terminal, {"reason": "the job is over", "exit_code": None})

    def close(self) -> None:
        """The channel has ended, and its terminals with it."""
        for terminal in list(self._open.values()):
            self._drop(terminal)

    def _hear_answer(self, terminal: Terminal) -> None:
        answer = read_json(terminal.path(".answer"))
        if not answer:
            return
        if answer.get("error"):
            self._refuse(terminal, answer["error"], answer["message"])
            return
        self._reply(terminal.request, {"ok": True})
        terminal.request = None
        terminal.forget_slave()

    def _reply(self, number: object, fields: dict) -> None:
        self._send({"type": "reply", "id": number, **fields})

    def _refuse(self, terminal: Terminal, slug: str, message: str) -> None:
        self._reply(terminal.request, {"ok": False, "error": slug, "message": message})
        self._drop(terminal)

    def _write(self, terminal: Terminal) -> None:
        if terminal.request is not None:
            return
        try:
            while terminal.waiting:
                written = os.write(terminal.master, terminal.waiting[:READ_BYTES])
                del terminal.waiting[:written]
                terminal.untold += written
        except BlockingIOError:
            pass
        except OSError:  # hung up: nobody reads it any more
            terminal.waiting.clear()
        if terminal.untold:
            self._send({"type": "terminal_taken", "terminal": terminal.name, "bytes": terminal.untold})
            terminal.untold = 0

    def _read(self, terminal: Terminal) -> bool:
        """Take a piece of output; False when there is none now."""
        try:
            data = os.read(terminal.master, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # hung up: the shell has ended, and why is about to be told
            data = b""
        if not data:
            terminal.silent_by = time.monotonic() + SILENT_S
            return False
        terminal.ahead += len(data)
        self._send({"type": "terminal_data", "lease": terminal.lease.name, "terminal": terminal.name}, data)
        return True

    def _follow_to_end(self, terminal: Terminal) -> None:
        """Once the shell has ended: its last bytes as far as they may go, then its end."""
        if terminal.end is None:
            return
        while terminal.is_readable and self._read(terminal):
            continue
        if terminal.ahead < WINDOW:
            self._finish(terminal, terminal.end)

    def _give_up(self, terminal: Terminal) -> None:
        if terminal.request is not None:
            self._refuse(terminal, "failed", "the job's supervisor did not answer within %d s" % ANSWER_S)
        else:
            self._finish(terminal, {"reason": "the job's supervisor has gone", "exit_code": None})

    def _finish(self, terminal: Terminal, end: dict) -> None:
        if terminal.request is not None:
            self._refuse(terminal, "not_running", str(end.get("reason") or "the job is over"))
            return
        head = {"type": "terminal_end", "lease": terminal.lease.name, "terminal": terminal.name}
        self._send({**head, "reason": end.get("reason"), "exit_code": end.get("exit_code")})
        self._drop(terminal)

    def _drop(self, terminal: Terminal) -> None:
        del self._open[terminal.name]
        terminal.close()
        for ending in (".ask", ".answer", ".end"):
            discard(terminal.path(ending))
        if terminal.end is None and os.path.isdir(terminal.lease.terminals):
            with contextlib.suppress(OSError):  # the hang-up tells the supervisor as well
                write_json(terminal.path(".close"), {"close": True})
                control.wake(terminal.lease)
