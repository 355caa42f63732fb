"""The engine's own socket, for short questions: a few milliseconds each, where starting the program takes forty.

Rule: only what the socket answers in plain words is taken from it. No socket on this machine (an engine elsewhere,
Podman without a service), no answer, or an answer that says no: the caller asks the program, whose words are
for people.
"""

from __future__ import annotations

import http.client
import json
import os
import socket as sockets

from ..home import read_json

DEFAULT_SOCKET = "/var/run/docker.sock"
WITHIN_S = 60.0
KINDS = {"container": "/containers/%s/json", "image": "/images/%s/json", "volume": "/volumes/%s"}
REMOVALS = {"container": "/containers/%s?force=1&v=1", "network": "/networks/%s", "volume": "/volumes/%s?force=1"}
ABSENT = 404
LAST_GOOD = 299


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, within_s: float) -> None:
        super().__init__("engine", timeout=within_s)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def path_of(program: str, host: str | None) -> str | None:
    """Where the socket of the engine that the program would ask is; None where that is not plain."""
    if os.path.basename(program) != "docker":
        return None
    address = host
    if not address:
        config = read_json(os.path.expanduser("~/.docker/config.json"))
        if os.environ.get("DOCKER_CONTEXT") or config.get("currentContext", "default") != "default":
            return None
        address = os.environ.get("DOCKER_HOST") or "unix://" + DEFAULT_SOCKET
    path = address[len("unix://") :] if address.startswith("unix://") else ""
    return path if os.path.exists(path) else None


def call(path: str, method: str, target: str, body: dict | None = None, within_s: float = WITHIN_S) -> tuple | None:
    """(status, what was answered) of one request; None when there was no answer."""
    connection = _Connection(path, within_s)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, {} if data is None else {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def is_good(answer: tuple | None) -> bool:
    """Whether it was done."""
    return answer is not None and answer[0] <= LAST_GOOD


def remove(path: str, kind: str, name: str) -> bool:
    """Remove a container (with its nameless volumes), a network or a volume; whether that is done."""
    return is_good(call(path, "DELETE", REMOVALS[kind] % name))
