"""Fetches a job's secret from Google Cloud's Secret Manager.

Rule: the job's own token is exchanged, by workload identity federation, for one that lives for this one request; the
manager's identity has no part in it. REST, not gRPC: it goes through proxies and starts no threads.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import google_crc32c
import requests
from google.api_core import exceptions as said
from google.auth import identity_pool
from google.auth.exceptions import GoogleAuthError, OAuthError, RefreshError, TransportError
from google.auth.transport.requests import Request
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from typing_extensions import override

from fleet.sdk import GcpSecret, SecretDenied, SecretError, SecretNotFound, SecretUnavailable, SecretValue

TOKEN_URL = "https://sts.googleapis.com/v1/token"  # noqa: S105  an address
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
WORDS = 400  # characters of what Google says
_WHOLE = re.compile(r"projects/[^/]+/secrets/[^/]+(?P<version>/versions/[^/]+)?")


class _Token(identity_pool.SubjectTokenSupplier):
    """The job's token, as the library asks for it."""

    def __init__(self, token: str) -> None:
        self._token = token

    @override
    def get_subject_token(self, context: Any, request: Any) -> str:
        return self._token


def fetch(request: GcpSecret, *, token_url: str = TOKEN_URL, endpoint: str | None = None) -> SecretValue:
    """The secret; the addresses are Google's own unless a test names others."""
    until = time.monotonic() + request.timeout_s
    name = name_of(request)
    with _translated(f"pool {request.pool_id}, provider {request.provider_id} of project {request.project_number}"):
        credentials = _logged_in(request, token_url, until)
    with _translated(f"secret {name}"), _client(credentials, endpoint) as client:
        told = client.access_secret_version(request={"name": name}, timeout=_left_s(until), retry=None)
        data, checksum = bytes(told.payload.data), int(told.payload.data_crc32c)
    if told.payload.data_crc32c and google_crc32c.value(data) != checksum:
        raise SecretUnavailable(f"secret {name} came damaged: retry the job")
    try:
        return SecretValue(text=data.decode("utf-8"))
    except UnicodeDecodeError:
        raise SecretError(f"secret {name} is binary and no text: keep it as base64, and decode it in the job") from None


def name_of(request: GcpSecret) -> str:
    """The whole name of the version."""
    version = request.version or "latest"
    whole = _WHOLE.fullmatch(request.name)
    if whole is None:
        return f"projects/{request.project_number}/secrets/{request.name}/versions/{version}"
    return request.name if whole["version"] else f"{request.name}/versions/{version}"


def _logged_in(request: GcpSecret, token_url: str, until: float) -> Any:
    if not request.jwt:
        raise SecretDenied(
            "there is no token to log in to Google Cloud with: add `id_tokens` to the job, and name it by `token`"
        )
    pool = f"projects/{request.project_number}/locations/global/workloadIdentityPools/{request.pool_id}"
    credentials = identity_pool.Credentials(
        audience=f"//iam.googleapis.com/{pool}/providers/{request.provider_id}",
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",  # noqa: S106  the name of a type
        token_url=token_url,
        subject_token_supplier=_Token(request.jwt),
        scopes=[SCOPE],
    )
    with requests.Session() as session:
        credentials.refresh(partial(Request(session), timeout=_left_s(until)))
    return credentials


@contextmanager
def _client(credentials: Any, endpoint: str | None) -> Iterator[Any]:
    options = {"api_endpoint": endpoint} if endpoint else {}
    client = SecretManagerServiceClient(credentials=credentials, transport="rest", client_options=options)
    try:
        yield client
    finally:
        client.transport.close()


def _left_s(until: float) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise SecretUnavailable("Google Cloud did not answer in time: retry the job")
    return left_s


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except said.NotFound as exc:
        raise SecretNotFound(f"{what}: {exc.message[:WORDS]}") from exc
    except (said.TooManyRequests, said.ServerError, said.RetryError) as exc:
        raise SecretUnavailable(f"{what}: Google Cloud failed: {exc.message[:WORDS]}") from exc
    except said.ClientError as exc:
        raise SecretDenied(f"{what}: Google Cloud refuses: {exc.message[:WORDS]}") from exc
    except (OAuthError, RefreshError) as exc:
        raise _refused_token(what, exc) from None
    except (TransportError, requests.RequestException) as exc:
        raise SecretUnavailable(f"{what}: Google Cloud did not answer ({type(exc).__name__})") from exc
    except (GoogleAuthError, ValueError) as exc:
        raise SecretDenied(f"{what}: Google Cloud takes no such name or token ({type(exc).__name__})") from None


def _refused_token(what: str, exc: GoogleAuthError) -> SecretError:
    """The exchange of the token failed; STS says why in JSON, and what is none comes from something that broke."""
    text = str(exc.args[0] if exc.args else exc)[:WORDS]
    try:
        error = json.loads(str(exc.args[1]))["error"]
    except (ValueError, LookupError, TypeError):
        error = None
    if exc.retryable or not isinstance(error, str):
        return SecretUnavailable(f"{what}: Google Cloud failed: {text}")
    return SecretDenied(f"{what}: Google Cloud does not accept the job's token: {text}")
