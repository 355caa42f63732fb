"""A strict stand-in of Vault's HTTP API, and of OpenBao's login with each request: what it does not know is a breach.

It knows JWT logins at any mount, roles with bound claims, namespaces, the engines kv-v1 and kv-v2, and faults.
Tokens live as long as the server and open only what their role may read. `breaches` names each call that real servers
would not understand.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any

from typing_extensions import override

from tests.contract.secrets.listening import Answer, Call, Listening


@dataclass(slots=True, kw_only=True)
class Role:
    """Who may log in, and what they may read."""

    jwts: set[str]
    reads: tuple[str, ...] = ("",)  # beginnings of paths


@dataclass(slots=True)
class Fault:
    """What the next `count` calls to a path that ends so get instead of an answer."""

    path_end: str
    status: int = 503
    body: bytes = b'{"errors": ["local node not active"]}'
    count: int = 1
    delay_s: float = 0.0


@dataclass(slots=True)
class PretendVault(Listening):
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

    def allow(self, jwt: str, *, mount: str = "jwt", role: str = "", reads: tuple[str, ...] = ("",)) -> None:
        """Let a token log in at a mount as a role."""
        self.roles.setdefault((mount, role), Role(jwts=set(), reads=reads)).jwts.add(jwt)

    # what Vault does

    @override
    def answer(self, call: Call) -> Answer:
        call = replace(call, body=json.loads(call.body) if call.body else None)
        self.calls.append(call)
        status, told = self._told(call)
        return status, {}, told if isinstance(told, bytes) else json.dumps(told).encode()

    def _told(self, call: Call) -> tuple[int, dict[str, Any] | bytes]:
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
