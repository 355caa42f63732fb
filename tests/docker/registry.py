"""A private registry on loopback with logins, and a front before it that refuses, slows down or hangs on demand."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import bcrypt
from typing_extensions import override

from tests.docker.engine import Engine, NoDocker
from tests.docker.images import PREFIX, image

START_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registry:
    """`address` is what stands before the slash in an image's name; anonymous calls are answered 401."""

    address: str
    username: str
    password: str

    @property
    def basic(self) -> str:
        """The login as `auth` of a `config.json` has it."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def push(self, engine: Engine, name: str, *, repository: str = "", tag: str = "1") -> str:
        """Put an image of `tests.docker.images` into the registry; its reference. The engine forgets it again."""
        reference = f"{self.address}/{repository or f'group/{name}'}:{tag}"
        with self.logged_in() as folder:
            engine.docker("tag", image(engine, name), reference)
            engine.docker("--config", folder, "push", "--quiet", reference)
            engine.docker("rmi", reference)
        return reference

    @contextlib.contextmanager
    def logged_in(self) -> Iterator[str]:
        """A folder for `docker --config` that holds the login."""
        with tempfile.TemporaryDirectory(prefix="docker-config-") as folder:
            pathlib.Path(folder, "config.json").write_text(json.dumps({"auths": self.auths()}), encoding="utf-8")
            yield folder

    def auths(self, address: str = "") -> dict[str, Any]:
        """As in a `config.json`."""
        return {address or self.address: {"username": self.username, "password": self.password}}

    def credentials(self, address: str = "") -> list[dict[str, str]]:
        """As in a job's payload."""
        return [
            {
                "type": "registry",
                "url": address or self.address,
                "username": self.username,
                "password": self.password,
            }
        ]


@contextlib.contextmanager
def running_registry() -> Iterator[Registry]:
    """Debian's `docker-registry` on a port of its own; it is gone after the block."""
    program = shutil.which("docker-registry")
    if program is None:
        raise NoDocker("there is no program docker-registry: install Debian's package of that name")
    username, password = "robot", secrets.token_urlsafe(12)
    with tempfile.TemporaryDirectory(prefix="fleet-registry-") as folder:
        home = pathlib.Path(folder)
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        (home / "htpasswd").write_text(f"{username}:{hashed}\n", encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        (home / "config.yml").write_text(
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "warn", "accesslog": {"disabled": True}},
                    "storage": {"filesystem": {"rootdirectory": str(home / "data")}, "delete": {"enabled": True}},
                    "http": {"addr": address, "relativeurls": True, "secret": secrets.token_hex(16)},
                    "auth": {"htpasswd": {"realm": "tests", "path": str(home / "htpasswd")}},
                }
            ),
            encoding="utf-8",
        )
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                [program, "serve", str(home / "config.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "OTEL_TRACES_EXPORTER": "none"},
            )
        try:
            _await_answer(address, process, home / "log")
            yield Registry(address=address, username=username, password=password)
        finally:
            process.terminate()
            process.wait(30)


def _await_answer(address: str, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    until = time.monotonic() + START_S
    while True:
        connection = http.client.HTTPConnection(address, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 401:
                connection.close()
                return
        connection.close()
        if process.poll() is not None or time.monotonic() > until:
            raise NoDocker(f"docker-registry did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


@dataclasses.dataclass(kw_only=True)
class Front:
    """Stands before a registry under an address of its own and passes pulls on, but for what it is told to do.

    `status` answers every call so; `count` ends that after so many calls (None: never); `hangs` is silent instead.
    """

    address: str
    status: int = 0
    count: int | None = None
    hangs: bool = False
    asked: int = 0
    let_go: threading.Event = dataclasses.field(default_factory=threading.Event)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def strikes(self) -> bool:
        """Count one call; whether it is to go wrong."""
        with self.lock:
            self.asked += 1
            if not self.status and not self.hangs:
                return False
            if self.count is None:
                return True
            self.count -= 1
            return self.count >= 0


@contextlib.contextmanager
def running_front(registry: Registry) -> Iterator[Front]:
    """A front before this registry; it is gone after the block, and whoever hangs on it is let go."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_any(self) -> None:
            if front.strikes():
                if front.hangs:
                    front.let_go.wait(600)
                self.close_connection = True
                self.send_response(front.status or 503)
                body = json.dumps({"errors": [{"code": _code(front.status), "message": "as the test says"}]}).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self._pass_on()

        do_GET = do_HEAD = do_any  # noqa: N815  the names are http.server's

        def _pass_on(self) -> None:
            connection = http.client.HTTPConnection(registry.address, timeout=60)
            try:
                connection.request(self.command, self.path, None, dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                        self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)
            finally:
                connection.close()

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        @override
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hung up is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    front = Front(address=f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield front
    finally:
        front.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _code(status: int) -> str:
    return {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}.get(status, "UNKNOWN")


def local_name(name: str) -> str:
    """How an image that is only on the engine is called."""
    return f"{PREFIX}/{name}:1"
