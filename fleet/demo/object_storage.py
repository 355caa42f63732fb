"""The object storage behind the pretend GitLab: another port, where signed addresses are given out.

Rule: whoever comes here with a token of GitLab's has carried it to a stranger, which is a breach.
"""

from __future__ import annotations

import http.server
import pathlib
import shutil
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from fleet.demo.faults import FaultKind

if TYPE_CHECKING:
    from fleet.demo.state import State

TOKENS = ("JOB-TOKEN", "PRIVATE-TOKEN", "RUNNER-TOKEN", "Authorization")
IDLE_S = 60
POLL_S = 0.02  # how soon it hears of its end


class ObjectStorage:
    """Listens on loopback; `start` returns where."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._server: http.server.ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Serve in threads."""

        class Handler(_Handler):
            known = self._state

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="pretend-storage", daemon=True
        )
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """End."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(10)
            self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    known: State
    timeout = IDLE_S

    def do_GET(self) -> None:
        """A signed object."""
        state = self.known
        for name in TOKENS:
            if self.headers.get(name):
                state.violations.record("token_left_gitlab", None, f"{name} came to object storage")
        fault = state.faults.take({"object_storage"}, None)
        if fault is not None and fault.kind is FaultKind.STATUS:
            self.send_error(fault.status or 500)
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        found = state.artifacts.signed((query.get("X-Signature") or [""])[0])
        if found is None:
            self.send_error(403)
            return
        size = found.size
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        with pathlib.Path(found.path).open("rb") as file:
            if fault is not None and fault.kind is FaultKind.TRUNCATED_JSON:
                self.wfile.write(file.read(size // 2))
                return
            shutil.copyfileobj(file, self.wfile, 1 << 18)

    @override
    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""
