"""The terminal server: GitLab opens a websocket to it, and the terminal of a running job is at the other end.

    /session/<id>/exec                          the terminal; `Authorization` must be the session's to the letter
    /session/<id>/proxy/<service>/<port>/...    not served

Rule: whoever knows neither session nor word learns nothing (404, 401); one terminal a session (423). A job that does
not run yet is waited for, a minute at most. The websocket speaks GitLab's two subprotocols: bytes in binary messages,
or base64 in text ones; a text message `{"resize": {"rows": N, "cols": N}}` is ours, for clients that know it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http
import json
import logging
import pathlib
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from fleet.execution.terminals import NoTerminal, Terminal, Terminals
from fleet.model.lifecycle import JobState
from fleet.runtime.certificates import certificate_for
from fleet.runtime.clock import Clock
from fleet.runtime.sessions import PREFIX, Session, Sessions
from fleet.sdk import FleetError
from fleet.settings.session import SessionServerTable

log = structlog.get_logger(__name__)
BINARY, BASE64 = Subprotocol("terminal.gitlab.com"), Subprotocol("base64.terminal.gitlab.com")
PATH = re.compile(rf"{PREFIX}([0-9a-f]{{64}})/(exec|proxy/.+)")
CONNECTIONS = 128
WAIT_S = 60.0
LOOK_S = 0.25
ROWS, COLS = 24, 80
CERTIFICATE_FILE = "session.pem"
NORMAL, GOING_AWAY, INTERNAL = 1000, 1001, 1011
CLOSE_S = 2.0
OPEN_S = 30.0


class TerminalServer:
    """Serves the terminals of one manager's jobs, where the configuration says so."""

    def __init__(self, table: SessionServerTable, sessions: Sessions, terminals: Terminals, clock: Clock) -> None:
        self._table = table
        self._sessions = sessions
        self._terminals = terminals
        self._clock = clock
        self._server: Server | None = None
        self._held: dict[str, ServerConnection] = {}
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self._closing = threading.Event()

    def start(self, state_dir: str) -> None:
        """Listen where the configuration says; without an address, or when it cannot be had, there are no terminals."""
        address, advertised = self._table.listen_address, self._table.advertised
        if address is None or advertised is None:
            return
        try:
            certificate = certificate_for(advertised, pathlib.Path(state_dir, CERTIFICATE_FILE), self._clock.wall())
            self._server = self._listen(address, certificate.path)
        except (OSError, ValueError) as exc:
            log.error("terminal_server_failed", address=address, error=str(exc))
            return
        threading.Thread(target=self._server.serve_forever, name="terminals", daemon=True).start()
        self._sessions.where = (advertised, certificate.pem)
        log.info("terminal_server_started", address=address, advertised=advertised)

    def close(self) -> None:
        """Serve no more; open terminals are closed."""
        self._sessions.where = None
        self._closing.set()
        if self._server is not None:
            thread = threading.Thread(target=self._server.shutdown, name="terminals-close", daemon=True)
            thread.start()
            thread.join(CLOSE_S)

    @property
    def port(self) -> int | None:
        """Where it listens."""
        return None if self._server is None else int(self._server.socket.getsockname()[1])

    def _listen(self, address: str, certificate: pathlib.Path) -> Server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate)
        parts = urllib.parse.urlsplit(f"//{address}")
        host = parts.hostname or "::"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server((host, parts.port or 0), family=family, dualstack_ipv6=both)
        quiet = logging.getLogger("fleet.terminals")
        quiet.setLevel(logging.CRITICAL)  # what goes wrong with one connection is said by our own lines
        server = serve(
            self._serve,
            sock=listening,
            ssl=context,
            subprotocols=[BINARY, BASE64],
            select_subprotocol=_chosen,
            process_request=self._admit,
            compression=None,
            open_timeout=OPEN_S,
            server_header=None,
            ping_interval=20,
            ping_timeout=40,
            close_timeout=2,
            max_size=1 << 20,
            logger=quiet,
        )
        server.handler = self._bounded(server.handler)
        return server

    def _bounded(self, handle: Callable[[socket.socket, Any], None]) -> Callable[[socket.socket, Any], None]:
        def bounded(connection: socket.socket, address: Any) -> None:
            if not self._room.acquire(blocking=False):
                log.warning("terminals_refused", reason=f"{CONNECTIONS} connections are open")
                connection.close()
                with contextlib.suppress(AttributeError), self._server.lock:  # type: ignore[union-attr]
                    self._server.handler_threads.discard(threading.current_thread())  # type: ignore[union-attr]
                return
            try:
                handle(connection, address)
            finally:
                self._room.release()

        return bounded

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request that gets no terminal; None for one that does."""
        try:
            return self._refusal(connection, request)
        except FleetError as exc:
            return _answer(503, str(exc))

    def _refusal(self, connection: ServerConnection, request: Request) -> Response | None:
        match = PATH.fullmatch(urllib.parse.urlsplit(request.path).path)
        session = None if match is None else self._sessions.find(match[1])
        if match is None or session is None:
            return _answer(404, "There is no such session: its job is over, or runs elsewhere.")
        if not session.admits(request.headers.get("Authorization", "")):
            log.warning("terminal_unauthorized", job_key=session.job_key, peer=_peer(connection))
            return _answer(401, "The session has another authorization.")
        if match[2] != "exec":
            return _answer(501, "Ports of services are not reached through this server: use a terminal of the job.")
        if "websocket" not in request.headers.get("Upgrade", "").lower():
            return _answer(400, "This is a websocket: ask for an upgrade.")
        if not self._hold(session, connection):
            return _answer(423, "Somebody has a terminal of this job: one at a time.")
        refusal = self._await_job(session)
        if refusal is not None:
            self._release(session, connection)
        return refusal

    def _hold(self, session: Session, connection: ServerConnection) -> bool:
        """One connection a session; one that has gone does not count."""
        with self._lock:
            self._held = {key: each for key, each in self._held.items() if each.protocol.state is not State.CLOSED}
            if session.session_id in self._held:
                return False
            self._held[session.session_id] = connection
            return True

    def _release(self, session: Session, connection: ServerConnection) -> None:
        with self._lock:
            if self._held.get(session.session_id) is connection:
                del self._held[session.session_id]

    def _await_job(self, session: Session) -> Response | None:
        """Wait until the job runs; what to answer when it will not."""
        until = time.monotonic() + WAIT_S
        while True:
            work = self._sessions.work(session)
            if work is None:
                return _answer(404, "The job is over.")
            if work.state is JobState.RUNNING:
                return None
            if time.monotonic() > until:
                return _answer(503, f"The job is {work.state}: it did not begin to run within {WAIT_S:g} s.")
            if self._closing.wait(LOOK_S):
                return _answer(503, "The manager ends.")

    def _serve(self, connection: ServerConnection) -> None:
        """A websocket that was admitted: bring both ends together until one is over."""
        session = self._session_of(connection)
        if session is None:
            return
        try:
            terminal = self._opened(session)
        except FleetError as exc:
            log.warning("terminal_not_opened", job_key=session.job_key, error=str(exc))
            connection.close(INTERNAL, _short(str(exc)))
            self._release(session, connection)
            return
        showing = threading.Thread(target=_show, args=(terminal, connection), name="terminal-show", daemon=True)
        showing.start()
        try:
            _type(terminal, connection)
        finally:
            self._terminals.close(terminal)
            showing.join()
            self._release(session, connection)

    def _session_of(self, connection: ServerConnection) -> Session | None:
        match = None if connection.request is None else PATH.fullmatch(connection.request.path.partition("?")[0])
        return None if match is None else self._sessions.find(match[1])

    def _opened(self, session: Session) -> Terminal:
        """A terminal of the job; a container that is not there yet is waited for.

        Raises:
            NoTerminal: there is none to be had.
        """
        until = time.monotonic() + WAIT_S
        hold_s = float(self._table.session_timeout)
        while True:
            try:
                return self._terminals.open(session.job_key, rows=ROWS, cols=COLS, hold_s=hold_s)
            except NoTerminal as exc:
                if not exc.may_come or time.monotonic() > until or self._closing.wait(LOOK_S):
                    raise


def _show(terminal: Terminal, connection: ServerConnection) -> None:
    """What the terminal shows, as messages, until it has ended."""
    is_text = connection.subprotocol == BASE64
    with contextlib.suppress(ConnectionClosed):
        while (data := terminal.read()) is not None:
            connection.send(base64.b64encode(data).decode("ascii") if is_text else data)
        connection.close(GOING_AWAY if terminal.exit_code is None else NORMAL, _short(terminal.reason or ""))


def _type(terminal: Terminal, connection: ServerConnection) -> None:
    """What is typed, until the websocket is closed."""
    is_text = connection.subprotocol == BASE64
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            size = _size_in(message)
            if size is not None:
                terminal.resize(*size)
                continue
            data = message.encode() if isinstance(message, str) else message
            with contextlib.suppress(binascii.Error):  # what is no base64 is nothing that was typed
                terminal.write(base64.b64decode(data) if is_text else data)


def _size_in(message: str | bytes) -> tuple[int, int] | None:
    """The size that a message of ours asks for."""
    if not isinstance(message, str) or not message.startswith('{"resize"'):
        return None
    try:
        wanted = json.loads(message)["resize"]
        return int(wanted["rows"]), int(wanted["cols"])
    except (ValueError, TypeError, KeyError):
        return None


def _chosen(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first that both know; a client that names none gets binary messages."""
    return next((each for each in offered if each in (BINARY, BASE64)), None)


def _answer(status: int, text: str) -> Response:
    body = f"{text}\n".encode()
    headers = Headers(
        {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
    )
    return Response(status, http.HTTPStatus(status).phrase, headers, body)


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]) if isinstance(address, tuple) else ""


def _short(text: str) -> str:
    """A reason as a closing websocket may carry it."""
    return text.encode()[:120].decode(errors="ignore")
