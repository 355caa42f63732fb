"""An HTTP server on loopback that hands every call, of whatever method, to the stand-in that it belongs to."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from typing_extensions import override

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: Any  # bytes as they came, or what a stand-in reads in them


class Listening:
    """What a stand-in is; use it as a context. `certificate` (files: certificate, key) makes it speak TLS."""

    certificate: tuple[str, str] | None
    url: str
    _server: Any
    _thread: Any

    def answer(self, call: Call) -> Answer:
        """Status, further headers and body for one call."""
        raise AssertionError(f"{type(self).__name__} answers no {call.method}")

    def __enter__(self) -> Self:
        self._server = _Quiet(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if self.certificate else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    owner: Listening

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(method=self.command, path=self.path, headers=headers, body=body)
        status, more, content = self.server.owner.answer(call)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | dict(more)).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name: str) -> Any:
        """Every method is served, so that a wrong one is seen."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
