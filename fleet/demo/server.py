"""The HTTP server under the pretend GitLab: cheroot with threads, real resets, optional TLS.

Rule: a reset is a TCP RST, as a crashed proxy sends it, not an orderly end. Idle connections are
kept for long, because a client must not be hurt by what GitLab would not do.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from cheroot import server as cheroot_server
from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from typing_extensions import override

from fleet.demo.api import PEER, Application

log = logging.getLogger(__name__)
IDLE_S = 300
BACKLOG = 1024


class Connection(cheroot_server.HTTPConnection):
    """One client connection: knows who polled on it, and can be reset."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.system_id: str | None = None
        self.reset = False

    def is_there(self) -> bool:
        """Whether the client has not hung up; reads nothing."""
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLIN | select.POLLRDHUP)
        return not any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    @override
    def close(self) -> None:
        """In order, or with RST: unsent data dropped, no FIN."""
        if not self.reset:
            super().close()
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.socket.close()


class Gateway(wsgi.Gateway_10):
    """Hands the connection to the application, as the peer."""

    @override
    def get_environ(self) -> Any:
        """The WSGI environment and the peer."""
        environ: Any = super().get_environ()  # type: ignore[no-untyped-call]
        return {**environ, PEER: self.req.conn}


class CherootServer(wsgi.Server):
    """cheroot with our connections, and its complaints in the log instead of on the terminal."""

    ConnectionClass = Connection
    keep_alive_conn_limit = 1_000_000
    expiration_interval = 0.1

    @override
    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        log.log(level, "%s", msg, exc_info=traceback)


class HttpServer:
    """Listens on loopback; `start` returns when it does."""

    def __init__(
        self, application: Application, *, port: int, threads: int, tls: tuple[str, str] | None = None
    ) -> None:
        self._server = CherootServer(
            ("127.0.0.1", port),
            application,
            numthreads=threads,
            request_queue_size=BACKLOG,
            timeout=IDLE_S,
            shutdown_timeout=5,
        )
        self._server.gateway = Gateway
        if tls is not None:
            self._server.ssl_adapter = BuiltinSSLAdapter(*tls)
        self._scheme = "http" if tls is None else "https"
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen, serve in a thread, and say where."""
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve, name="pretend-gitlab", daemon=True)
        self._thread.start()
        return f"{self._scheme}://127.0.0.1:{self._server.bind_addr[1]}"

    def stop(self) -> None:
        """Close every connection and wait for the threads."""
        self._server.stop()
        if self._thread is not None:
            self._thread.join(10)


class Clerk:
    """A thread that does something every so often until it is stopped."""

    def __init__(self, work: Callable[[], None], *, every_s: float) -> None:
        self._work = work
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pretend-gitlab-clerk", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._work()
