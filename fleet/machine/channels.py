"""The open channels of this manager, one per instance, shared by all who talk to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from fleet.machine.channel import AgentChannel, FrameCallback
from fleet.machine.ssh import SshConnection

log = structlog.get_logger(__name__)
Opened = tuple[AgentChannel, SshConnection | None]
OnFrame = Callable[[str, dict[str, Any], bytes], None]
OnClosed = Callable[[str, str], None]


@dataclass(slots=True)
class _Held:
    lock: threading.Lock = field(default_factory=threading.Lock)
    channel: AgentChannel | None = None
    connection: SshConnection | None = None
    pinged_at: float = 0.0


class Channels:
    """Opens, keeps and closes channels. Thread-safe."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None
        self._closed = False

    def connect(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        """Say who gets the frames that are no replies, and who is told when a channel has ended."""
        self._on_frame = on_frame
        self._on_closed = on_closed

    def get(self, instance_id: str) -> AgentChannel | None:
        """The channel of an instance, if one stands."""
        held = self._held.get(instance_id)
        channel = None if held is None else held.channel
        return None if channel is None or channel.closed is not None else channel

    def open(self, instance_id: str, make: Callable[[FrameCallback], Opened]) -> AgentChannel:
        """The channel of an instance; opened by `make` unless one stands. Two callers open one."""
        with self._lock:
            held = self._held.setdefault(instance_id, _Held())
        with held.lock:
            if held.channel is not None and held.channel.closed is None:
                return held.channel
            _let_go(held)

            def frames(head: dict[str, Any], body: bytes) -> None:
                if self._on_frame is not None:
                    self._on_frame(instance_id, head, body)

            held.channel, held.connection = make(frames)
            held.pinged_at = time.monotonic()
            channel = held.channel
        channel.on_closed(lambda reason: self._ended(instance_id, reason))
        return channel

    def close(self, instance_id: str) -> None:
        """Close the channel of an instance that needs none any more."""
        with self._lock:
            held = self._held.pop(instance_id, None)
        if held is not None:
            with held.lock:
                _let_go(held)

    def close_all(self) -> None:
        """Close every channel; the jobs on the machines go on."""
        self._closed = True
        with self._lock:
            held, self._held = list(self._held.values()), {}
        for each in held:
            with each.lock:
                _let_go(each)

    def due_for_ping(self, every_s: float) -> list[str]:
        """The instances whose dead-man was not re-armed for `every_s`; they count as armed from now on."""
        now, due = time.monotonic(), []
        for instance_id, held in list(self._held.items()):
            if held.channel is not None and held.channel.closed is None and now - held.pinged_at >= every_s:
                held.pinged_at = now
                due.append(instance_id)
        return due

    def instances(self) -> set[str]:
        """The instances that have a channel, or had one that nobody closed."""
        return set(self._held)

    def count(self) -> int:
        """How many channels stand."""
        return sum(self.get(each) is not None for each in list(self._held))

    def _ended(self, instance_id: str, reason: str) -> None:
        if self._on_closed is not None and not self._closed:
            self._on_closed(instance_id, reason)


def _let_go(held: _Held) -> None:
    if held.channel is not None:
        held.channel.close()
    if held.connection is not None:
        held.connection.close()
    held.channel = held.connection = None
