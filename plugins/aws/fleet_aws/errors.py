"""Turns what boto3 raises into the errors of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from fleet.sdk import BadParameters, CredentialsRefused, ProviderError, ProviderUnavailable, Throttled

REFUSED = frozenset((
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
    "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "403",
))  # fmt: skip
THROTTLED = frozenset(("Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown", "TooManyRequests"))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the contract's errors; `what` says of whom the message speaks."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise CredentialsRefused(f"{what}: {exc}: give this host a role, or set the keys") from exc
    except ClientError as exc:
        raise _answered(what, exc) from exc
    except BotoCoreError as exc:
        raise ProviderUnavailable(f"{what}: AWS did not answer: {exc}") from exc
    except ValueError as exc:
        raise BadParameters(f"{what}: {exc}") from exc


def _answered(what: str, exc: ClientError) -> ProviderError:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in REFUSED:
        return CredentialsRefused(f"{what}: AWS refuses our credentials: {exc}")
    if code in THROTTLED or status == 429:
        return Throttled(f"{what}: AWS wants fewer calls: {exc}")
    if status >= 500:
        return ProviderUnavailable(f"{what}: AWS failed: {exc}")
    return BadParameters(f"{what}: {exc}")
