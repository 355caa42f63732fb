"""Turns what Azure's libraries raise into the errors of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from fleet.sdk import BadParameters, CredentialsRefused, ProviderUnavailable, Throttled


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the contract's errors; `what` says of whom the message speaks."""
    try:
        yield
    except ClientAuthenticationError as exc:
        raise CredentialsRefused(f"{what}: Azure refuses our credentials: {_first(exc)}") from exc
    except HttpResponseError as exc:
        status = exc.status_code or 0
        if status in (401, 403):
            raise CredentialsRefused(f"{what}: Azure refuses our credentials: {_first(exc)}") from exc
        if status == 429:
            raise Throttled(f"{what}: Azure wants fewer calls: {exc.message}") from exc
        if 400 <= status < 500:
            raise BadParameters(f"{what}: {exc.message}") from exc
        raise ProviderUnavailable(f"{what}: Azure failed: {exc.message}") from exc
    except AzureError as exc:
        raise ProviderUnavailable(f"{what}: Azure did not answer: {exc.message}") from exc
    except ValueError as exc:
        # the library says so of an account key it cannot read, and its text may hold the key
        raise BadParameters(
            f"{what}: nothing can be signed ({type(exc).__name__}): AccountKey must be a key in base64, and without one"
            " the address must begin with https://"
        ) from None


def _first(exc: AzureError) -> str:
    return str(exc.message).partition("\n")[0]
