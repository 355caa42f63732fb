"""A server on loopback that answers what the test tells it to, byte for byte, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self):
        return json.loads(self.body)


def answer(status, body=b"", *, kind=None, length=None, **headers):
    """An answer as bytes; `length` lies about the length of the body, underscores in header names are dashes."""
    if isinstance(body, dict):
        body, kind = json.dumps(body).encode(), kind or "application/json"
    lines = [f"HTTP/1.1 {status} Whatever"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    if status != 204:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reset(sock):
    """Break the connection off with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until(condition, seconds=10.0):
    """Wait for a condition that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


@dataclass
class ScriptedServer:
    """`script` holds answers for the requests to come, in order; the last one stays.

    An answer is bytes, or a function of (socket, request) that returns bytes or None when it has done all itself.
    A `greet` function gets each new connection instead of HTTP.
    """

    context: ssl.SSLContext | None = None
    script: list[bytes | Callable] = field(default_factory=lambda: [answer(204)])
    greet: Callable | None = None
    asked: list[Asked] = field(default_factory=list)
    accepted: int = 0

    def __post_init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if self.context else 'http'}://localhost:{self.port}"
        self._lock = threading.Lock()
        self.open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.accepted += 1
                number = self.accepted
                self.open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, number))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain, number):
        sock = plain
        try:
            if self.greet:
                self.greet(sock)
                return
            if self.context:
                sock = self.context.wrap_socket(plain, server_side=True)
                with self._lock:
                    self.open.discard(plain)
                    self.open.add(sock)
            self._converse(sock, number)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self.open -= {plain, sock}
            sock.close()
            plain.close()

    def _converse(self, sock, number):
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                more = sock.recv(65536)
                if not more:
                    return
                buffer += more
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            first, *rest = head.decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
            left = int(headers.get("content-length", 0))
            while len(buffer) < left:
                more = sock.recv(65536)
                if not more:
                    return
                buffer += more
            body, buffer = buffer[:left], buffer[left:]
            method, target, _ = first.split(" ")
            asked = Asked(method, target, headers, body, number)
            with self._lock:
                self.asked.append(asked)
                step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            reply = step(sock, asked) if callable(step) else step
            if reply is None:
                return
            sock.sendall(reply)
            if b"\r\nConnection: close" in reply:
                return
