"""Sockets whose waiting can be cut short from another thread.

Theory. The HTTP engine under httpx blocks in `recv`; a long poll therefore holds its thread for up to a minute and
nothing can end it, because a response object exists only after the headers have come. So we give the engine a
network of our own: sockets never block, and every wait is a `poll` on the socket *and* on the stop sign of the
request in hand.

When the sign is set while we wait for an answer, a job may be on its way to us, or be about to be assigned; to drop
it would leave it to GitLab's slow time-outs. So we leave in two steps. For `LISTEN_S` we only listen, because proxies
and Workhorse drop what they are doing as soon as they see that the client has gone. Then we close our half of the
connection: the server stops looking for a job, and what it sent before that still arrives, for `LEAVE_S`. Once a first
byte has come, the rest gets `FINISH_S`.

Rule: one connection serves one request at a time, and `Waiting` is that request's share of it. Name look-up is the
one wait that cannot be cut short (the system's resolver decides how long it takes).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore
from typing_extensions import override

from fleet.gitlab.cancel import Cancel

LISTEN_S = 0.1
LEAVE_S = 0.1
FINISH_S = 10.0
KEEPALIVE_IDLE_S = 30
TOGETHER_BYTES = 1 << 16
T = TypeVar("T")


class Stopped(Exception):
    """The request was given up because its stop sign was set, and no answer was under way."""


@dataclasses.dataclass(slots=True)
class Waiting:
    """How long one request may wait, and what may end its waiting."""

    cancel: Cancel | None = None
    deadline: float | None = None  # on the monotonic clock, for the whole request
    may_linger: bool = False  # the request is sent, so an answer may be on its way
    heard: bool = False  # a first byte of the answer has come
    stopped_at: float | None = None  # when the sign was seen
    has_left: bool = False  # our half of the connection is closed

    def check(self) -> None:
        """Do not begin what is to be stopped."""
        if self.cancel is not None and self.cancel.is_set():
            raise Stopped

    def until(self, timeout_s: float | None) -> float | None:
        """The instant at which one wait of at most `timeout_s` ends."""
        limits = [] if self.deadline is None else [self.deadline]
        if timeout_s is not None:
            limits.append(time.monotonic() + timeout_s)
        if self.stopped_at is not None:
            more_s = FINISH_S if self.heard else LISTEN_S + LEAVE_S if self.has_left else LISTEN_S
            limits.append(self.stopped_at + more_s)
        return min(limits, default=None)

    def ready(self, sock: socket.socket, events: int, until: float | None) -> bool:
        """Wait for `events`; False when it is no use to try again. A stop sign raises `Stopped`, or starts leaving."""
        sign = self.cancel if self.stopped_at is None else None
        poller = select.poll()
        poller.register(sock, events)
        if sign is not None:
            poller.register(sign, select.POLLIN)
        left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
        found = dict(poller.poll(left_ms))
        if sock.fileno() in found:
            return True
        if not found:
            return self._leaves(sock)
        if not self.may_linger:
            raise Stopped
        self.stopped_at = time.monotonic()
        return True

    def _leaves(self, sock: socket.socket) -> bool:
        """The time is over: close our half if we are leaving and have not done so; True then."""
        if self.stopped_at is None or self.heard or self.has_left:
            return False
        self.has_left = True
        with contextlib.suppress(OSError):
            # The plain socket's way: SSLSocket.shutdown drops the TLS state that we still read with, and unwrap
            # loses data that is on its way.
            socket.socket.shutdown(sock, socket.SHUT_WR)
        return True

    @property
    def is_given_up(self) -> bool:
        """We stopped, and no answer had begun."""
        return self.stopped_at is not None and not self.heard


class Stream(httpcore.NetworkStream):
    """One connection, as the HTTP engine wants it."""

    def __init__(self, sock: socket.socket, network: Network) -> None:
        self._sock = sock
        self._network = network
        self._unsent = b""  # the engine writes headers and body apart: one packet costs half of two
        self._write_s: float | None = None

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        waiting = self._network.waiting
        if self._unsent:
            with contextlib.suppress(httpcore.WriteError):  # a server may answer and close before it has read all
                self._send()
        waiting.may_linger = True
        try:
            data = self._insist(lambda: self._sock.recv(max_bytes), select.POLLIN, timeout)
        except OSError as exc:  # TimeoutError is one
            if waiting.is_given_up:
                raise Stopped from exc
            error = httpcore.ReadTimeout if isinstance(exc, TimeoutError) else httpcore.ReadError
            raise error(_said(exc)) from exc
        if not data and waiting.is_given_up:
            raise Stopped
        waiting.heard = True
        return data

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        waiting = self._network.waiting
        waiting.may_linger = waiting.heard = False  # a proxy's answer to CONNECT may have come before
        self._unsent += buffer
        self._write_s = timeout
        if len(self._unsent) > TOGETHER_BYTES:
            self._send()

    def _send(self) -> None:
        left, self._unsent = memoryview(self._unsent), b""
        try:
            while left:
                sent = self._insist(lambda: self._sock.send(left), select.POLLOUT, self._write_s)  # noqa: B023  runs at once
                left = left[sent:]
        except OSError as exc:
            error = httpcore.WriteTimeout if isinstance(exc, TimeoutError) else httpcore.WriteError
            raise error(_said(exc)) from exc

    @override
    def close(self) -> None:
        self._sock.close()

    @override
    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        try:
            self._sock = self._network.sock = secure = ssl_context.wrap_socket(
                self._sock, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            self._insist(secure.do_handshake, select.POLLIN, timeout)
        except BaseException as exc:
            self.close()
            if not isinstance(exc, OSError):
                raise
            error = httpcore.ConnectTimeout if isinstance(exc, TimeoutError) else httpcore.ConnectError
            raise error(f"TLS with {server_hostname} failed: {_said(exc)}") from exc
        return self

    @override
    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":  # above all no "ssl_object": the engine would only ask it for HTTP/2
            return None
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(0))

    def _insist(self, attempt: Callable[[], T], events: int, timeout_s: float | None) -> T:
        """Try until it does not block any more; `TimeoutError` when the time is over."""
        waiting = self._network.waiting
        until = waiting.until(timeout_s)
        while True:
            try:
                return attempt()
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            except BlockingIOError:
                wanted = events
            if not waiting.ready(self._sock, wanted, until):
                raise TimeoutError("it did not answer in time")
            if waiting.stopped_at is not None:
                until = waiting.until(timeout_s)


def _said(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({exc.verify_message}): set tls-ca-file to the CA that signed it"
    return exc.strerror or str(exc) or type(exc).__name__


class Network(httpcore.NetworkBackend):
    """Makes the sockets of one line; `waiting` is set anew before each request on it."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.sock: socket.socket | None = None

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        until = self.waiting.until(timeout)
        why: OSError = OSError("it has no address")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(f"the name {host} cannot be looked up: {exc}") from exc
        for number, (family, kind, protocol, _, address) in enumerate(found):
            sock = socket.socket(family, kind, protocol)
            try:
                self._connect(sock, address, _share(until, len(found) - number))
            except OSError as exc:
                sock.close()
                why = exc
                continue
            except BaseException:
                sock.close()
                raise
            self.sock = sock
            return Stream(sock, self)
        error = httpcore.ConnectTimeout if isinstance(why, TimeoutError) else httpcore.ConnectError
        raise error(f"cannot connect to {host}:{port}: {_said(why)}") from why

    def _connect(self, sock: socket.socket, address: Any, until: float | None) -> None:
        sock.setblocking(False)
        _keep_alive(sock)
        with contextlib.suppress(BlockingIOError):
            sock.connect(address)
        if not self.waiting.ready(sock, select.POLLOUT, until):
            raise TimeoutError("it did not answer in time")
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))


def _share(until: float | None, addresses_left: int) -> float | None:
    """The instant until which the next address may be tried, so that a dead first one leaves time for the others."""
    now = time.monotonic()
    return None if until is None else now + (until - now) / addresses_left


def _keep_alive(sock: socket.socket) -> None:
    """A held poll is silent for a minute: keep the entry in whatever translates addresses on the way."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
