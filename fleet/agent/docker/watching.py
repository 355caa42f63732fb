"""An open question to the engine, which tells what befell a job's containers from outside, and that the engine ended.

Rule: an exit code alone does not tell whether a script ended or was ended: an engine that is stopped, or a person,
signals the container first, and a shell then exits as if of its own will. Where the engine has no socket here (Podman
without a service, an engine elsewhere) nothing is told.
"""

from __future__ import annotations

import json
import socket
import urllib.parse

from .engine import Engine

SPEAK_S = 5.0


class Watch:
    """What happens to the containers of one job."""

    def __init__(self, engine: Engine) -> None:
        self._socket = None
        self._ended = False
        if engine.socket is None:
            return
        filters = urllib.parse.quote(json.dumps({"event": ["kill"], "label": [engine.label]}))
        talking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        talking.settimeout(SPEAK_S)
        try:
            talking.connect(engine.socket)
            talking.sendall(b"GET /events?filters=%s HTTP/1.1\r\nHost: fleet\r\n\r\n" % filters.encode())
        except OSError:
            talking.close()
            return
        talking.setblocking(False)
        self._socket = talking

    @property
    def is_engine_gone(self) -> bool:
        """Whether the engine has ended since."""
        self._heard()
        return self._ended

    def was_killed(self) -> bool:
        """Whether a container of the job was signaled through the engine since this was last asked."""
        return b'"kill"' in self._heard()

    def _heard(self) -> bytes:
        heard = b""
        while self._socket is not None and not self._ended:
            try:
                piece = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            self._ended = not piece
            heard += piece
        return heard

    def close(self) -> None:
        """Ask no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
