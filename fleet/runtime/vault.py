"""HashiCorp Vault and GitLab's own secrets manager (OpenBao), over HTTP: the built-in answers of `fleet_secret`.

Rule: this is the one doorway to them. Nothing is kept between two requests: each logs in with the job's token and has
its own connection, so no job can read by another's login. What a server answers is bounded in size and in time; of a
refusal only Vault's own `errors` are repeated, without the token.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx

from fleet.sdk import (
    GitLabSecret,
    SecretDenied,
    SecretError,
    SecretNotFound,
    SecretRequest,
    SecretUnavailable,
    SecretValue,
    VaultSecret,
    hookimpl,
)

ANSWER_BYTES = 8 << 20
CONNECT_S = 10.0
ENGINES = ("kv-v2", "kv-v1", "generic")
WORDS = 300  # characters of what a server says
HIDDEN_FROM = 6  # shorter parts of a token are no secret, and may be words
_LATER = frozenset((412, 429))  # replicas that lag, too many calls
_ADVICE = {
    400: "the role or its bound claims do not fit this job's token, or the engine has no such path",
    401: "the job's token is not accepted",
    403: "the job's token may not do this: look at the role's bound claims and its policies",
    405: "the engine does not allow this: look at its name and path",
}


@hookimpl
def fleet_secret(request: SecretRequest) -> SecretValue | None:
    """A field of a secret in Vault, or in GitLab's own manager."""
    if isinstance(request, VaultSecret):
        with _Server(request, request.url, hidden=request.auth_data.get("jwt", "")) as server:
            return _field(server, request, _logged_in(server, request))
    if isinstance(request, GitLabSecret):
        with _Server(request, request.url, hidden=request.jwt) as server:
            return _field(server, request, _inline(server, request))
    return None


def _logged_in(server: _Server, request: VaultSecret) -> dict[str, str]:
    """The headers of one who has logged in."""
    if request.auth_name != "jwt":
        raise SecretDenied(f"login {request.auth_name!r} at {server.name} is not known: this runner logs in by jwt")
    if not request.auth_data.get("jwt"):
        raise SecretDenied(
            f"there is no token to log in to {server.name} with: add `id_tokens` to the job, and name one by `token`"
            " where there are several"
        )
    headers = {"X-Vault-Namespace": request.namespace} if request.namespace else {}
    login = _joined("auth", request.auth_path, "login")
    data = {key: request.auth_data[key] for key in ("jwt", "role") if key in request.auth_data}
    told = server.call("POST", login, headers, data)
    if told is None:
        raise SecretDenied(f"{server.name} has no login at {login}: look at VAULT_AUTH_PATH and VAULT_NAMESPACE")
    token = _at(told, "auth", "client_token")
    if not isinstance(token, str) or not token:
        raise SecretError(f"logging in to {server.name} at {login} brought no token: is that a login of Vault?")
    return headers | {"X-Vault-Token": token}


def _inline(server: _Server, request: GitLabSecret) -> dict[str, str]:
    """The headers of a request that carries its login."""
    if not request.jwt or not request.role:
        raise SecretDenied(f"GitLab sent no token or no role for {server.name}: retry the job")
    headers = {"X-Vault-Inline-Auth-Path": _joined(request.auth_path)}
    for key, value in (("jwt", request.jwt), ("role", request.role)):
        pair = json.dumps({"key": key, "value": value}).encode()
        headers[f"X-Vault-Inline-Auth-Parameter-{key}"] = base64.urlsafe_b64encode(pair).rstrip(b"=").decode()
    return headers


def _field(server: _Server, request: VaultSecret | GitLabSecret, headers: Mapping[str, str]) -> SecretValue:
    """The field asked for, from what the engine says of the secret."""
    if request.engine_name not in ENGINES:
        raise SecretDenied(f"engine {request.engine_name!r} of {server.name} is not one of {', '.join(ENGINES)}")
    has_versions = request.engine_name == "kv-v2"
    told = server.call("GET", _joined(request.engine_path, "data" if has_versions else "", request.path), headers, None)
    where = f"{request.path} in engine {request.engine_path} at {server.name}"
    data = _at(told, "data", "data") if has_versions else _at(told, "data")
    if data is None:
        raise SecretNotFound(f"there is no secret {where}")
    if not isinstance(data, dict):
        raise SecretError(f"what stands at {where} is no secret: is engine {request.engine_name} the right one?")
    value = data.get(request.field)
    if value is None:
        raise SecretNotFound(f"there is no field {request.field!r} in secret {where}")
    return SecretValue(text=value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _at(told: Any, *names: str) -> Any:
    for name in names:
        told = told.get(name) if isinstance(told, dict) else None
    return told


def _joined(*parts: str) -> str:
    """A path of the API, without empty steps and without steps that lead up."""
    steps = [step for part in parts for step in part.split("/") if step]
    if any(step in (".", "..") for step in steps):
        raise SecretDenied("a path of a secret holds . or ..: write where the secret lies")
    return "/".join(urllib.parse.quote(step, safe="") for step in steps)


def _address(url: str, variable: str) -> str:
    """The address of a server, without what may stand before its name and behind its path."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SecretDenied(
            f"secret {variable}: its server has no address that can be asked: set VAULT_SERVER_URL to https://HOST[:PORT]"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


class _Server:
    """One server for the time of one request; `hidden` is never in a message."""

    def __init__(self, request: SecretRequest, url: str, *, hidden: str) -> None:
        self.name = _address(url, request.variable)
        self._hidden = hidden
        self._until = time.monotonic() + request.timeout_s
        self._timeout_s = request.timeout_s
        self._client = httpx.Client(
            verify=_trust(request.ca),
            timeout=httpx.Timeout(request.timeout_s, connect=min(CONNECT_S, request.timeout_s)),
            follow_redirects=False,
            headers={"X-Vault-Request": "true"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> dict[str, Any] | None:
        """One call; None for 404.

        Raises:
            SecretDenied: the server refuses, or the address can be nobody's.
            SecretUnavailable: it does not answer, or breaks.
            SecretError: it answers what Vault would not.
        """
        url = f"{self.name}/v1/{path}"
        with (
            self._translated(path),
            self._client.stream(method, url, headers=dict(headers), json=body) as response,
        ):
            status, content = response.status_code, self._content(response)
        if status == 200:
            return self._object(content, path)
        if status == 404:
            return None
        said = f"{self.name} answered {status} to {path}{self._words(content)}"
        if status in _ADVICE:
            raise SecretDenied(f"{said}: {_ADVICE[status]}")
        if status >= 500 or status in _LATER:
            raise SecretUnavailable(f"{said}: retry the job when it is well again")
        raise SecretError(f"{said}, which is no answer of Vault: look at its address")

    def _words(self, content: bytes) -> str:
        """What the server says of its refusal; a token that it repeats is taken out."""
        try:
            errors = json.loads(content).get("errors")
        except (ValueError, RecursionError, AttributeError):
            return ""
        words = "; ".join(error for error in errors if isinstance(error, str)) if isinstance(errors, list) else ""
        for word in (self._hidden, *self._hidden.split(".")):
            words = words.replace(word, "[MASKED]") if len(word) >= HIDDEN_FROM else words
        return f" ({' '.join(words[:WORDS].split())})" if words.strip() else ""

    def _object(self, content: bytes, path: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None  # not chained: the error would carry the content
        if not isinstance(found, dict):
            raise SecretError(f"{self.name} answered no JSON object to {path}: is that a server of Vault?")
        return found

    def _content(self, response: httpx.Response) -> bytes:
        """The answer, as much of it as anybody may send, in the time there is."""
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > ANSWER_BYTES:
                raise SecretError(f"{self.name} answered more than {ANSWER_BYTES >> 20} MiB: that is no secret")
            if time.monotonic() > self._until:
                raise SecretUnavailable(self._late())
            chunks.append(chunk)
        return b"".join(chunks)

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            if time.monotonic() > self._until:
                raise SecretUnavailable(self._late())
            yield
        except httpx.TimeoutException as exc:
            raise SecretUnavailable(self._late()) from exc
        except httpx.HTTPError as exc:
            why = f"{self.name} cannot be asked for {path} ({exc})"
            raise SecretUnavailable(f"{why}: look at its address, its certificate and the way there") from exc
        except httpx.InvalidURL as exc:
            raise SecretDenied(f"{self.name} is no address that can be asked ({exc})") from exc

    def _late(self) -> str:
        return f"{self.name} did not answer within {self._timeout_s:g} s: retry the job when it is well again"


def _trust(ca: str) -> ssl.SSLContext:
    """The system's certificates (SSL_CERT_FILE counts) and the runner's own."""
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(cadata=ca)
        except ssl.SSLError as exc:
            raise SecretError(f"the runner's tls-ca-file cannot be used for servers of secrets ({exc.reason})") from exc
    return context
