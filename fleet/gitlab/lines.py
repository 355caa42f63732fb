"""Connections to one GitLab server, lent to one request at a time.

Theory. httpx's own pool looks at all its connections and waiting requests for every request, which made 16 ms out
of each long poll with 500 of them open. Here each `Line` is an httpx transport of one connection, and idle lines lie
on a stack: the next request takes the top one, so the cost does not grow with their number, the few that are in use
stay warm, and those at the bottom grow old and are closed. Polls and updates can share the stack, for a held
poll simply has its line for as long as it takes.

Rule: the number of lines is the number of threads that call; idle ones are at most `IDLE_LINES`, for `IDLE_S`.
A line older than `max_age_s` is not used again, so that a changed DNS entry or load balancer takes effect.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import time
from collections.abc import Iterator

import httpcore
import httpx
from typing_extensions import override

from fleet.gitlab.sockets import Network, Waiting
from fleet.gitlab.tls import TlsMaterial

IDLE_LINES = 100
IDLE_S = 90.0


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The engine's errors as httpx's, whose names are the same."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as exc:
        raise getattr(httpx, type(exc).__name__)(str(exc)) from exc


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    @override
    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._response.iter_stream()

    @override
    def close(self) -> None:
        with _translated():
            self._response.close()


class Line(httpx.BaseTransport):
    """One connection, made when first needed and again when the server has closed it."""

    def __init__(self, tls: TlsMaterial, proxy: httpx.URL | None) -> None:
        self.tls = tls
        self.network = Network()
        self.made_at = self.used_at = time.monotonic()
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls.context,
            proxy=_engine_proxy(proxy),
            max_connections=1,
            keepalive_expiry=IDLE_S,
            network_backend=self.network,
        )

    @property
    def sock(self) -> socket.socket | None:
        """The socket of the last connection."""
        return self.network.sock

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _translated():
            answer = self._pool.handle_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    @override
    def close(self) -> None:
        with _translated():
            self._pool.close()


def _engine_proxy(proxy: httpx.URL | None) -> httpcore.Proxy | None:
    if proxy is None:
        return None
    address = httpcore.URL(scheme=proxy.raw_scheme, host=proxy.raw_host, port=proxy.port or 80, target=b"/")
    auth = (proxy.username, proxy.password) if proxy.username or proxy.password else None
    return httpcore.Proxy(address, auth=auth)


class Lines:
    """The stack of idle lines of one endpoint; safe for any number of threads."""

    def __init__(self, *, proxy: httpx.URL | None, max_age_s: float) -> None:
        self._proxy = proxy
        self._max_age_s = max_age_s
        self._idle: collections.deque[Line] = collections.deque()  # its append and pop are atomic
        self._is_closed = False

    @contextlib.contextmanager
    def lent(self, tls: TlsMaterial, waiting: Waiting) -> Iterator[Line]:
        """A line for one request; it is closed, not kept, when the request was given up."""
        line = self._take(tls)
        line.network.waiting = waiting
        try:
            yield line
        except BaseException:
            line.close()
            raise
        line.network.waiting = Waiting()
        if waiting.stopped_at is None:
            self._keep(line)
        else:
            line.close()

    def close(self) -> None:
        """Close what is idle now, and what comes back later when it comes."""
        self._is_closed = True
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def _take(self, tls: TlsMaterial) -> Line:
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return Line(tls, self._proxy)
            now = time.monotonic()
            if line.tls is tls and now - line.made_at <= self._max_age_s and now - line.used_at <= IDLE_S:
                return line
            line.close()

    def _keep(self, line: Line) -> None:
        line.used_at = time.monotonic()
        self._idle.append(line)
        while len(self._idle) > IDLE_LINES or (self._idle and self._is_old(line.used_at)) or self._is_closed:
            try:
                self._idle.popleft().close()
            except IndexError:
                return

    def _is_old(self, now: float) -> bool:
        try:
            return now - self._idle[0].used_at > IDLE_S
        except IndexError:
            return False
