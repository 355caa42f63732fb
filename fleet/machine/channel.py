"""The agent channel: the manager's end of the frames in docs/reference/agent-frames.md.

One channel per machine, kept open. Any thread may `request`; one thread per channel reads, sleeps in `recv` until bytes
come, and delivers what is no reply to the frame callback. A callback must be quick and must not call `request` or
`send`: the reply could only be read by the thread it holds. When the channel ends, every waiting request ends with
`ChannelClosed`; the jobs on the machine go on, and whoever owns the channel opens another and follows again.
"""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from fleet.machine.bootstrap import AgentOptions, Bootstrap, Started
from fleet.machine.bundle import Bundle, agent_bundle
from fleet.machine.errors import AgentError, BootstrapFailed, ChannelClosed, ChannelTimeout
from fleet.machine.frames import MAX_BODY_BYTES, PROTOCOL, BrokenFrame, FrameReader, Head, encode
from fleet.machine.pipe import Pipe, PipeClosed, ProcessPipe
from fleet.machine.ssh import SshConnection

FrameCallback = Callable[[Head, bytes], None]
ClosedCallback = Callable[[str], None]
_ENDED: Head = {"type": "ended"}
PULSE = ("free_bytes", "load", "disks")


class AgentChannel:
    """An open channel to a machine's agent.

    Attributes:
        hello: the facts the agent told first (see the frame table).
        pulse: what it told last of what changes: load, free room.
        uploaded: whether the agent had to be sent to this machine.
        last_heard: monotonic instant of the last bytes from the machine.
    """

    def __init__(self, pipe: Pipe, *, on_frame: FrameCallback | None = None) -> None:
        self.hello: Head = {}
        self.pulse: Head = {}
        self.uploaded = False
        self.last_heard = time.monotonic()
        self._pipe = pipe
        self._on_frame: FrameCallback = on_frame or _ignore
        self._on_closed: ClosedCallback | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Head]] = {}
        self._write_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._hello_came: queue.SimpleQueue[Head] = queue.SimpleQueue()
        self._reason: str | None = None
        self._first_bytes = b""
        self._reader = threading.Thread(target=self._read, name=f"agent-channel {pipe.where}", daemon=True)

    @classmethod
    def over_ssh(
        cls,
        connection: SshConnection,
        *,
        options: AgentOptions | None = None,
        bundle: Bundle | None = None,
        on_frame: FrameCallback | None = None,
    ) -> Self:
        """Bring the agent to life at the other end of an SSH connection, sending it if it is not there yet.

        Raises:
            Unreachable: the connection gives no session.
            NoPython, NoSpace, BootstrapFailed: the agent did not come to life in time.
        """
        options = options or AgentOptions()
        bootstrap = Bootstrap(bundle or agent_bundle(), options)
        by = time.monotonic() + options.deadline_s
        pipe = connection.open_pipe(bootstrap.command, timeout_s=options.deadline_s)
        return cls._begin(pipe, bootstrap, by, on_frame)

    @classmethod
    def over_process(
        cls,
        home: Path,
        *,
        options: AgentOptions | None = None,
        bundle: Bundle | None = None,
        on_frame: FrameCallback | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """The same on this host, over a pipe and without SSH; `home` is the agent's home directory, made if absent.

        Raises:
            NoPython, NoSpace, BootstrapFailed: the agent did not come to life in time.
        """
        options = options or AgentOptions(python=sys.executable)
        bootstrap = Bootstrap(bundle or agent_bundle(), options)
        by = time.monotonic() + options.deadline_s
        try:
            home.mkdir(parents=True, exist_ok=True)
            pipe = ProcessPipe(
                ["/bin/sh", "-c", bootstrap.program], env=_plain_environment(home) | dict(env or {}), cwd=home
            )
        except OSError as exc:
            raise BootstrapFailed(f"the agent cannot be started on this host in {home}: {exc}") from exc
        return cls._begin(pipe, bootstrap, by, on_frame)

    @classmethod
    def _begin(cls, pipe: Pipe, bootstrap: Bootstrap, by: float, on_frame: FrameCallback | None) -> Self:
        channel = cls(pipe, on_frame=on_frame)
        started = None
        try:
            started = bootstrap.run(pipe, by=by)
            channel._start(started, by)
        except BaseException:
            if started is None:
                pipe.close()
                pipe.release()
            else:
                channel.close()
            raise
        return channel

    def _start(self, started: Started, by: float) -> None:
        self.uploaded = started.uploaded
        self._first_bytes = started.first_bytes
        self._reader.start()
        try:
            self.hello = self._hello_came.get(timeout=max(0.0, by - time.monotonic()))
        except queue.Empty:
            raise BootstrapFailed(f"the agent on {self._pipe.where} did not say hello in time") from None
        if self.hello["type"] != "hello":
            raise BootstrapFailed(f"the agent on {self._pipe.where} ended before its hello: {self._reason}")
        if self.hello.get("protocol") != PROTOCOL:
            spoken = self.hello.get("protocol")
            raise BootstrapFailed(f"the agent on {self._pipe.where} speaks protocol {spoken}, we speak {PROTOCOL}")

    def request(self, kind: str, timeout_s: float, /, *, body: bytes | None = None, **fields: Any) -> Head:
        """Ask the agent something and wait for its reply. A body over 1 MiB goes in parts.

        Raises:
            AgentError: the agent refused.
            ChannelClosed: the channel has ended; whether the request was done is unknown.
            ChannelTimeout: no reply in time; a late one is thrown away.
        """
        number = next(self._ids)
        answer: queue.SimpleQueue[Head] = queue.SimpleQueue()
        by = time.monotonic() + timeout_s
        with self._state_lock:
            if self._reason is not None:
                raise ChannelClosed(self._ended_text())
            self._waiting[number] = answer
        try:
            for frame in _frames_of({"type": kind, "id": number, **fields}, body or b""):
                self._write(frame, by, kind)
            reply = answer.get(timeout=max(0.0, by - time.monotonic()))
        except queue.Empty:
            raise ChannelTimeout(f"{self._pipe.where} did not answer {kind!r} within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)
        if reply["type"] == "ended":
            raise ChannelClosed(self._ended_text())
        if not reply.get("ok"):
            raise AgentError(str(reply.get("error", "failed")), str(reply.get("message", "")))
        return reply

    def send(self, kind: str, timeout_s: float, /, *, body: bytes = b"", **fields: Any) -> None:
        """Tell the agent something that has no reply (`sign_reply`, `terminal_data`).

        Raises:
            ChannelClosed: the channel has ended.
            ChannelTimeout: other writers held the channel for so long.
        """
        self._write(encode({"type": kind, **fields}, body), time.monotonic() + timeout_s, kind)

    def note_pulse(self, head: Head) -> None:
        """A frame told of free room and load."""
        self.pulse = {**self.pulse, **{name: head[name] for name in PULSE if name in head}}

    def on_frame(self, callback: FrameCallback) -> None:
        """From now on deliver frames that are no replies here, on the reading thread."""
        self._on_frame = callback

    def on_closed(self, callback: ClosedCallback) -> None:
        """Call this once with the reason when the channel has ended; at once if it has."""
        with self._state_lock:
            reason = self._reason
            if reason is None:
                self._on_closed = callback
        if reason is not None:
            callback(reason)

    @property
    def closed(self) -> str | None:
        """Why the channel has ended; None while it stands."""
        return self._reason

    def close(self) -> None:
        """End the channel and wait for its reading thread. Nothing on the machine is ended."""
        self._end("closed by the manager")
        self._pipe.close()
        if self._reader.ident is not None and threading.current_thread() is not self._reader:
            self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, frame: bytes, by: float, kind: str) -> None:
        if not self._write_lock.acquire(timeout=max(0.0, by - time.monotonic())):
            raise ChannelTimeout(f"{self._pipe.where} is busy taking other frames; {kind!r} was not sent")
        try:
            if self._reason is not None:
                raise ChannelClosed(self._ended_text())
            self._pipe.send(frame)
        except PipeClosed as exc:
            # A frame may be half out: nothing can follow it.
            self._end(str(exc))
            self._pipe.close()
            raise ChannelClosed(self._ended_text()) from exc
        finally:
            self._write_lock.release()

    def _read(self) -> None:
        reason = "the reading thread ended by an error"
        try:
            reason = self._read_all()
        finally:
            self._end(reason)
            self._pipe.close()
            self._pipe.release()

    def _read_all(self) -> str:
        frames = FrameReader()
        data = self._first_bytes
        try:
            while True:
                for head, body in frames.feed(data):
                    self._take(head, body)
                data = self._pipe.recv(None)
                if not data:
                    return self._pipe.ending() or "the agent ended its output"
                self.last_heard = time.monotonic()
        except BrokenFrame as exc:
            return f"the stream broke ({exc}); does something on the machine print into it?"

    def _take(self, head: Head, body: bytes) -> None:
        kind = head["type"]
        if kind == "reply":
            answer = self._waiting.get(head.get("id", 0))
            if answer is not None:
                answer.put(head)
        elif kind == "hello":
            self.note_pulse(head)
            self._hello_came.put(head)
        else:
            if kind == "heartbeat":
                self.note_pulse(head)
            self._on_frame(head, body)

    def _end(self, reason: str) -> None:
        with self._state_lock:
            if self._reason is not None:
                return
            self._reason = reason
            callback, self._on_closed = self._on_closed, None
            waiting = list(self._waiting.values())
        self._hello_came.put(_ENDED)
        for answer in waiting:
            answer.put(_ENDED)
        if callback is not None:
            callback(reason)

    def _ended_text(self) -> str:
        return f"the agent channel to {self._pipe.where} has ended: {self._reason}"


def _frames_of(head: Head, body: bytes) -> list[bytes]:
    if len(body) <= MAX_BODY_BYTES:
        return [encode(head, body)]
    pieces = [body[at : at + MAX_BODY_BYTES] for at in range(0, len(body), MAX_BODY_BYTES)]
    part = {"type": "part", "id": head["id"]}
    return [encode({**head, "parts": len(pieces)}), *(encode(part, piece) for piece in pieces)]


def _plain_environment(home: Path) -> dict[str, str]:
    """What a login would set; nothing of the manager's own environment, which may hold secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "USER", "LOGNAME", "SHELL", "TZ") if name in os.environ}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} | kept | {"HOME": str(home)}


def _ignore(head: Head, body: bytes) -> None:
    """Frames that come before anybody asked for one: a heartbeat at most."""
