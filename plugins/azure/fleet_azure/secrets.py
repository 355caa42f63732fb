"""Fetches a job's secret from an Azure Key Vault.

Rule: the job's own token is the assertion by which an application logs in, for this one request; the manager's identity
has no part in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientAssertionCredential
from azure.keyvault.secrets import SecretClient

from fleet.sdk import AzureSecret, SecretDenied, SecretError, SecretNotFound, SecretUnavailable, SecretValue

CONNECT_S = 10.0
WORDS = 400  # characters of what Azure says
NOTHING: Mapping[str, Any] = {}


def fetch(
    request: AzureSecret, *, identity: Mapping[str, Any] = NOTHING, vault: Mapping[str, Any] = NOTHING
) -> SecretValue:
    """The secret; `identity` and `vault` are further options of the two clients, for tests with their own servers."""
    if not request.jwt:
        raise SecretDenied(
            f"there is no token to log in to {request.url} with: add `id_tokens` to the job, and name one by `token`"
        )
    timeouts = _within(time.monotonic() + request.timeout_s)
    with _translated(f"secret {request.name} in {request.url}"):
        credential = ClientAssertionCredential(
            request.tenant_id, request.client_id, lambda: request.jwt, **timeouts, **identity
        )
        with credential, SecretClient(request.url, credential, **timeouts, **vault) as client:
            found = client.get_secret(request.name, request.version or None)
    if found.value is None:
        raise SecretNotFound(f"secret {request.name} in {request.url} has no value")
    return SecretValue(text=found.value)


def _within(until: float) -> dict[str, Any]:
    left_s = until - time.monotonic()
    return {"connection_timeout": min(CONNECT_S, left_s), "read_timeout": left_s / 2, "retry_total": 0}


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ResourceNotFoundError as exc:
        raise SecretNotFound(f"{what}: {_words(exc)}") from exc
    except ClientAuthenticationError as exc:
        raise _login(what, exc) from None
    except HttpResponseError as exc:
        raise _answered(what, exc) from exc
    except AzureError as exc:
        raise SecretUnavailable(f"{what}: Azure did not answer: {_words(exc)}") from exc
    except ValueError as exc:
        raise SecretDenied(f"{what}: Azure takes no such address or name ({_words(exc)})") from None


def _login(what: str, exc: ClientAuthenticationError) -> SecretError:
    answer = exc.response
    status = exc.status_code or (answer.status_code if answer is not None else None) or 0
    if status >= 500:
        return SecretUnavailable(f"{what}: logging in failed: {_words(exc)}")
    return SecretDenied(f"{what}: Azure does not accept the job's token: {_words(exc)}")


def _answered(what: str, exc: HttpResponseError) -> SecretError:
    status = exc.status_code or 0
    said = f"{what}: Azure says {status}: {_words(exc)}"
    if status >= 500 or status == 429:
        return SecretUnavailable(said)
    return SecretDenied(said) if 400 <= status < 500 else SecretError(said)


def _words(exc: Exception) -> str:
    text = str(getattr(exc, "message", None) or exc)
    return " ".join(text.split())[:WORDS]
