"""The manager's HTTP servers: `listen_address` for monitoring, `[fleet] api_listen` for the API, which has both.

Rule: they answer from the moment the manager starts until the last thing it does, so that somebody who looks sees why
nothing happens. Where the API really listens (a port of 0 is any) is noted in the state directory for `fleetctl`.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import structlog
from cheroot import wsgi
from typing_extensions import override
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.wrappers import Request, Response

from fleet.runtime.api import Api, as_json
from fleet.runtime.attaching import HAND_OVER, HANDED_OVER
from fleet.runtime.contract import ADDRESS_FILE, PREFIX
from fleet.runtime.meters import Meters
from fleet.runtime.metrics import Metrics
from fleet.runtime.monitoring import Monitoring
from fleet.runtime.terminal_server import TerminalServer
from fleet.runtime.views import Views
from fleet.sdk import FleetError

if TYPE_CHECKING:
    from fleet.runtime.app import Manager
    from fleet.runtime.reloading import Reloader

log = structlog.get_logger(__name__)
THREADS = 4
CLOSE_S = 1.0
METRICS_KEY, API_KEY = "listen_address", "[fleet] api_listen"


class AddressInUse(FleetError):
    """A configured address cannot be listened on."""

    slug = "address_in_use"


class Web:
    """Both servers of one manager.

    Attributes:
        metrics: what `/metrics` shows; its `measure` is run by a controller.
        api_url, metrics_url: where they listen, once started.
    """

    def __init__(self, manager: Manager, meters: Meters | None = None, reloader: Reloader | None = None) -> None:
        self._manager = manager
        self.metrics = Metrics(manager, meters or Meters(manager.me), reloader)
        views = Views(manager.store, manager)
        self._monitoring = Monitoring(manager, self.metrics, views)
        self._api = Api(manager, views, reloader)
        self._terminals = TerminalServer(
            manager.settings.global_.session_server, manager.servers.sessions, manager.executor.terminals, manager.clock
        )
        self._servers: dict[str, _Server] = {}
        self._wanted: dict[str, str | None] = {}
        self._refused: dict[str, str | None] = {}
        self.api_url: str | None = None
        self.metrics_url: str | None = None

    @property
    def address_file(self) -> pathlib.Path:
        """Where it is noted where the API listens."""
        return pathlib.Path(self._manager.settings.fleet.state_dir) / ADDRESS_FILE

    def start(self) -> None:
        """Listen on both addresses.

        Raises:
            AddressInUse: one of them cannot be had; the message names the key. Nothing listens then.
        """
        try:
            for key in (METRICS_KEY, API_KEY):
                self._listen(key)
        except AddressInUse:
            self.close()
            raise
        self._note_address()
        self._terminals.start(self._manager.settings.fleet.state_dir)
        log.info("web_started", api=self.api_url, metrics=self.metrics_url)

    def follow(self) -> None:
        """Listen where the configuration says now; where that cannot be had, the old address is kept."""
        for key in (METRICS_KEY, API_KEY):
            if self._address(key) == self._wanted.get(key):
                continue
            before = self._servers.pop(key, None)
            try:
                self._listen(key)
            except AddressInUse as exc:
                if self._refused.get(key) != self._address(key):  # it is tried again and again, and told once
                    log.error("address_not_changed", error=str(exc), kept=self._wanted.get(key))
                self._refused[key] = self._address(key)
                if before is not None:
                    self._servers[key] = before
                continue
            if before is not None:
                threading.Thread(target=before.close, name="web-close", daemon=True).start()
            self._note_address()
            log.info("web_moved", api=self.api_url, metrics=self.metrics_url)

    def close(self) -> None:
        """Stop listening; calls in progress end."""
        self._terminals.close()
        closing = [threading.Thread(target=server.close, daemon=True) for server in self._servers.values()]
        for each in closing:
            each.start()
        for each in closing:
            each.join(CLOSE_S)
        self._servers.clear()
        self.address_file.unlink(missing_ok=True)

    def _note_address(self) -> None:
        with contextlib.suppress(OSError):  # it is a convenience: the configured address says the same
            self.address_file.write_text(f"{self.api_url}\n", encoding="ascii")

    def _address(self, key: str) -> str | None:
        settings = self._manager.settings
        return settings.fleet.api_listen if key == API_KEY else settings.global_.listen_address

    def _listen(self, key: str) -> None:
        address, url = self._address(key), None
        if address:
            server = _Server(address, self._for_api if key == API_KEY else self._for_monitoring)
            try:
                url = server.start()
            except OSError as exc:
                raise AddressInUse(
                    f"{key} = {address!r} cannot be listened on: {exc.strerror or exc}; "
                    "does another manager run on this host? give this one another port"
                ) from exc
            self._servers[key] = server
        self._wanted[key] = address
        if key == API_KEY:
            self.api_url = url
        else:
            self.metrics_url = url

    def _for_monitoring(self, request: Request) -> Response:
        page, _ = self._monitoring.rules.bind_to_environ(request.environ).match()
        return self._monitoring.answer(page, request)

    def _for_api(self, request: Request) -> Response:
        if not request.path.startswith(PREFIX):
            return self._for_monitoring(request)
        path, names = self._api.rules.bind_to_environ(request.environ).match()
        return self._api.answer(path, request, **names)


class _CherootServer(wsgi.Server):
    """cheroot with its complaints in our log."""

    @override
    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        if level >= logging.WARNING:
            log.warning("web_complained", message=msg.strip(), exc_info=traceback)

    @override
    def bind(self, family: int, type: int, proto: int = 0) -> Any:
        made = self.prepare_socket(self.bind_addr, family, type, proto, self.nodelay, self.ssl_adapter, self.reuse_port)
        try:
            self.socket = self.bind_socket(made, self.bind_addr)  # type: ignore[no-untyped-call]
        except OSError:
            made.close()  # which cheroot forgets
            raise
        self.bind_addr = self.resolve_real_bind_addr(self.socket)  # type: ignore[no-untyped-call]
        return self.socket


class _Gateway(wsgi.Gateway_10):
    """cheroot's, which also gives a connection away when a call was upgraded."""

    @override
    def get_environ(self) -> Any:
        return {**super().get_environ(), HAND_OVER: self._hand_over}  # type: ignore[no-untyped-call]

    def _hand_over(self) -> Any:
        """The socket; nothing more is read, written or shut down here."""
        self.req.sent_headers = self.req.close_connection = self.req.conn.linger = True
        return self.req.conn.socket.dup()


class _Server:
    """One listening socket and its threads."""

    def __init__(self, address: str, app: Callable[[Request], Response]) -> None:
        parts = urllib.parse.urlsplit(f"//{address}")
        self._host = parts.hostname or "0.0.0.0"  # noqa: S104  `:9252` means every interface, as in GitLab Runner
        self._app = app
        self._server = _CherootServer(
            (self._host, parts.port or 0), self._wsgi, numthreads=THREADS, timeout=30, shutdown_timeout=2
        )
        self._server.gateway = _Gateway
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve, name="web", daemon=True)
        self._thread.start()
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.bind_addr[1]}"

    def close(self) -> None:
        self._server.stop()
        if self._thread is not None:
            self._thread.join(5)

    def _wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        response = self._answer(Request(environ))
        return () if environ.get(HANDED_OVER) else response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            return self._app(request)
        except NotFound:
            return _refused(404, "not_found", f"there is nothing at {request.path}")
        except MethodNotAllowed as exc:
            return _refused(405, "method_not_allowed", f"{request.path} takes {', '.join(exc.valid_methods or [])}")
        except HTTPException as exc:
            return _refused(exc.code or 400, "bad_request", exc.description or "")
        except FleetError as exc:
            return _refused(503, exc.slug, str(exc))


def _refused(status: int, slug: str, message: str) -> Response:
    return as_json({"error": {"slug": slug, "message": message}}, status)
