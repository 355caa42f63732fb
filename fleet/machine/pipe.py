"""Two ends of bytes to a program on a machine: what the agent channel needs, whatever carries it.

`SshPipe` (in `ssh`) is one; `ProcessPipe` here is the other: a program of this host, for the place `host`.
One thread reads, any thread writes; `close` may come from any thread and wakes the reader.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

RECV_BYTES = 1024 * 1024
TAIL_BYTES = 4096


class PipeClosed(Exception):
    """The other end is gone, or took no data in time; the pipe is of no more use."""


class PipeTimeout(Exception):
    """Nothing came in time."""


class Pipe(Protocol):
    """Bytes to and from one program."""

    @property
    def where(self) -> str:
        """What it leads to, for messages."""
        ...

    def recv(self, timeout_s: float | None) -> bytes:
        """Some bytes; b"" when the program has ended its output. None waits without waking up.

        Raises:
            PipeTimeout: nothing came in time.
        """
        ...

    def send(self, data: bytes) -> None:
        """Write everything; bounded by the pipe's own send time-out.

        Raises:
            PipeClosed: not everything was taken.
        """
        ...

    def ending(self) -> str:
        """How the program ended (exit status, end of its standard error), as far as it is known."""
        ...

    def close(self) -> None:
        """End it; the reader wakes up with b""."""
        ...

    def release(self) -> None:
        """Give back what is held; called once, by the reader, when it has left `recv` for good."""
        ...


class Tail:
    """The last bytes of a stream that is otherwise thrown away."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        """Keep the end of what was kept and `data`."""
        self._data = (self._data + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def text(self) -> str:
        """What was kept, fit for a message."""
        return readable(self._data)


def readable(data: bytes) -> str:
    """Bytes from a machine as text for a message: the end of them, without control characters."""
    text = data[-TAIL_BYTES:].decode("utf-8", "replace")
    return "".join(ch if ch.isprintable() or ch == "\n" else "?" for ch in text).strip()


class ProcessPipe:
    """A program of this host, in a session of its own, spoken to over its standard input and output."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, send_timeout_s: float = 30.0) -> None:
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            bufsize=0,
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        os.set_blocking(self._stdin.fileno(), False)
        self._send_timeout_s = send_timeout_s
        self._tail = Tail()
        self._wake_r, self._wake_w = os.pipe()
        self._poll = select.poll()
        for fd in (self._stdout.fileno(), self._stderr.fileno(), self._wake_r):
            self._poll.register(fd, select.POLLIN)
        self._done = False
        self._closing = threading.Lock()
        self._sending = threading.Lock()

    @property
    def where(self) -> str:
        return f"this host (process {self._process.pid})"

    def recv(self, timeout_s: float | None) -> bytes:
        by = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._done:
            left_ms = None if by is None else max(0.0, by - time.monotonic()) * 1000
            ready = {fd for fd, _ in self._poll.poll(left_ms)}
            if not ready:
                raise PipeTimeout
            if self._stderr.fileno() in ready:
                self._read_stderr()
            if self._stdout.fileno() in ready:
                data = os.read(self._stdout.fileno(), RECV_BYTES)
                if not data:
                    self._reap()
                return data
        return b""

    def _read_stderr(self) -> None:
        data = os.read(self._stderr.fileno(), TAIL_BYTES)
        if data:
            self._tail.add(data)
        else:
            self._poll.unregister(self._stderr.fileno())

    def send(self, data: bytes) -> None:
        with self._sending, memoryview(data) as view:
            if self._stdin.closed:
                raise PipeClosed(f"{self.where} has closed its input")
            fd = self._stdin.fileno()
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            at = 0
            while at < len(view):
                if not writable.poll(self._send_timeout_s * 1000):
                    raise PipeClosed(f"{self.where} took no data for {self._send_timeout_s:g} s")
                at += self._write_some(fd, view[at : at + 65536])

    def _write_some(self, fd: int, piece: memoryview) -> int:
        try:
            return os.write(fd, piece)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise PipeClosed(f"{self.where} has closed its input") from exc

    def ending(self) -> str:
        code = self._process.poll()
        status = "" if code is None else f"exit status {code}"
        return "; ".join(part for part in (status, self._tail.text()) if part)

    def close(self) -> None:
        """End the program: it holds no job, so it is simply told to go, and made to when it does not."""
        with self._closing:
            if not self._done:
                self._done = True
                os.write(self._wake_w, b"x")
        self._process.terminate()
        self._reap()

    def _reap(self) -> None:
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def release(self) -> None:
        with self._closing:
            self._done = True
            for stream in (self._stdout, self._stderr):
                stream.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
        with self._sending:
            self._stdin.close()
