"""A strict stand-in of Vault's HTTP API, and of OpenBao's login with each request: what it does not know is a breach.

It knows JWT logins at any mount, roles with bound claims, namespaces, the engines kv-v1 and kv-v2, and faults.
Tokens live as long as the server and open only what their role may read. `breaches` names each call that real servers
would not understand.
"""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self

from typing_extensions import override


@dataclass(slots=True, kw_only=True)
class Role:
    """Who may log in, and what they may read."""

    jwts: set[str]
    reads: tuple[str, ...] = ("",)  # beginnings of paths


@dataclass(slots=True, kw_only=True)
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Fault:
    """What the next `count` calls to a path that ends so get instead of an answer."""

    path_end: str
    status: int = 503
    body: bytes = b'{"errors": ["local node not active"]}'
    count: int = 1
    delay_s: float = 0.0


@dataclass(slots=True)
class PretendVault:
    """The server; use it as a context."""

    certificate: tuple[str, str] | None = None  # files: certificate, key
    namespace: str = ""
    roles: dict[tuple[str, str], Role] = field(default_factory=dict)  # by (mount, role)
    kv1: dict[str, dict[str, Any]] = field(default_factory=dict)  # whole path -> fields
    kv2: dict[str, dict[str, Any]] = field(default_factory=dict)  # whole path with data/ -> fields
    faults: list[Fault] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    tokens: dict[str, Role] = field(default_factory=dict)
    url: str = ""
    _server: Any = None
    _thread: Any = None

    def __enter__(self) -> Self:
        vault = self

        class Handler(_Handler):
            owner = vault

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def allow(self, jwt: str, *, mount: str = "jwt", role: str = "", reads: tuple[str, ...] = ("",)) -> None:
        """Let a token log in at a mount as a role."""
        self.roles.setdefault((mount, role), Role(jwts=set(), reads=reads)).jwts.add(jwt)

    # what Vault does

    def answer(self, call: Call) -> tuple[int, dict[str, Any] | bytes]:
        """One call; a status and a JSON object."""
        for fault in self.faults:
            if fault.count > 0 and call.path.endswith(fault.path_end):
                fault.count -= 1
                time.sleep(fault.delay_s)
                return fault.status, fault.body
        if call.headers.get("x-vault-namespace", "") != self.namespace:
            return 404, {"errors": ["no handler for route: route entry not found."]}
        if call.headers.get("x-vault-request") != "true":
            return 400, self._breach(call, "no X-Vault-Request header")
        if call.path.startswith("/v1/auth/") and call.path.endswith("/login"):
            return self._log_in(call)
        return self._read(call)

    def _log_in(self, call: Call) -> tuple[int, dict[str, Any]]:
        if call.method not in ("POST", "PUT"):
            return 405, self._breach(call, "a login by another method")
        if "x-vault-token" in call.headers:
            self._breach(call, "a token with a login")
        if not isinstance(call.body, dict) or set(call.body) - {"jwt", "role"}:
            return 400, self._breach(call, f"a login with other fields: {sorted(call.body or ())}")
        mount = call.path.removeprefix("/v1/auth/").removesuffix("/login")
        role, why = self._role(mount, call.body.get("role", ""), call.body.get("jwt", ""))
        if role is None:
            return 400, {"errors": [why]}
        token = "hvs." + secrets.token_urlsafe(24)
        self.tokens[token] = role
        return 200, {"request_id": "1", "auth": {"client_token": token, "lease_duration": 3600, "renewable": True}}

    def _role(self, mount: str, name: str, jwt: str) -> tuple[Role | None, str]:
        role = self.roles.get((mount, name))
        if role is None:
            return None, f"role {name!r} could not be found"
        if jwt not in role.jwts:
            return None, f"error validating token {jwt}: invalid audience (aud) claim"
        return role, ""

    def _read(self, call: Call) -> tuple[int, dict[str, Any]]:
        if call.method != "GET":
            return 405, self._breach(call, "a read by another method")
        role = self._inline_role(call) if "x-vault-inline-auth-path" in call.headers else None
        if role is None:
            role = self.tokens.get(call.headers.get("x-vault-token", ""))
        path = call.path.removeprefix("/v1/")
        if role is None or not path.startswith(role.reads):
            return 403, {"errors": ["permission denied"]}
        if path in self.kv2:
            return 200, {"data": {"data": self.kv2[path], "metadata": {"version": 3}}}
        if path in self.kv1:
            return 200, {"data": self.kv1[path], "lease_duration": 2764800}
        return 404, {"errors": []}

    def _inline_role(self, call: Call) -> Role | None:
        """OpenBao: the login goes with the request, in headers."""
        if "x-vault-token" in call.headers:
            self._breach(call, "a token beside the login of the request")
        prefix = "x-vault-inline-auth-parameter-"
        given: dict[str, str] = {}
        for name, value in call.headers.items():
            if name.startswith(prefix):
                if "=" in value:
                    self._breach(call, "a parameter with padding")
                pair = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
                if set(pair) != {"key", "value"}:
                    self._breach(call, "a parameter that is no pair")
                given[pair["key"]] = pair["value"]
        at = call.headers["x-vault-inline-auth-path"]
        if not at.startswith("auth/") or not at.endswith("/login"):
            self._breach(call, f"a login at {at}")
        return self._role(at.removeprefix("auth/").removesuffix("/login"), given.get("role", ""), given.get("jwt", ""))[
            0
        ]

    def _breach(self, call: Call, what: str) -> dict[str, Any]:
        self.breaches.append(f"{call.method} {call.path}: {what}")
        return {"errors": [what]}


class _QuietServer(http.server.ThreadingHTTPServer):
    """Says nothing of clients that go away, as some of these tests want."""

    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet."""


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: PretendVault
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        body = json.loads(raw) if raw else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(method=self.command, path=self.path, headers=headers, body=body)
        self.owner.calls.append(call)
        status, told = self.owner.answer(call)
        content = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
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
