"""Turns what Google's libraries raise into the errors of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import Forbidden, GoogleAPICallError, TooManyRequests, Unauthorized
from google.auth.exceptions import GoogleAuthError, TransportError

from fleet.sdk import BadParameters, CredentialsRefused, ProviderUnavailable, Throttled


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the contract's errors; `what` says of whom the message speaks."""
    try:
        yield
    except TransportError as exc:
        raise ProviderUnavailable(f"{what}: Google did not answer: {exc}") from exc
    except (GoogleAuthError, Forbidden, Unauthorized) as exc:
        raise CredentialsRefused(f"{what}: Google refuses our credentials: {exc}") from exc
    except TooManyRequests as exc:
        raise Throttled(f"{what}: Google wants fewer calls: {exc}") from exc
    except GoogleAPICallError as exc:
        raise ProviderUnavailable(f"{what}: Google failed: {exc}") from exc
    except OSError as exc:
        raise BadParameters(f"{what}: {exc.filename or 'a file'} cannot be read: {exc.strerror or exc}") from exc
    except (ValueError, AttributeError, TypeError) as exc:
        # the library says so of keys it cannot read and of accounts that cannot sign; its text may hold the key
        raise BadParameters(f"{what}: its key or account cannot sign ({type(exc).__name__})") from None
