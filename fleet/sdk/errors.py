"""The one tree of errors a provider may raise, and what each makes the manager do.

    FleetError                          everything of ours; `slug` names it in metrics
    +- ProviderError                    the provider could not do what was asked
       +- OutOfCapacity                 no such machine there just now; its scope cools down
       +- QuotaExceeded                 the account may not have more; its scope cools down
       +- Throttled                     the API wants fewer calls; calls slow down, capacity is not blamed
       +- CredentialsRefused            nobody may act for this account until a person mends it
       +- BadParameters                 the request can never succeed as it is; a person must change it
       +- ProviderUnavailable           the API did not answer or broke; try again
    +- SecretError                      a job's secret could not be fetched; the job fails as our fault
       +- SecretDenied                  a person must mend the job, its token or a permission
       +- SecretNotFound                there is no such secret, version or field
       +- SecretUnavailable             the provider did not answer or broke; trying again may help

An error answers two questions: is it worth trying again (`retry_after_s`, `scope`), and which short slug goes
into metrics. Deleting what is absent is not an error.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Scope(StrEnum):
    """How far an error reaches: what cools down because of it."""

    INSTANCE = "instance"
    PLACEMENT = "placement"
    TYPE = "type"
    ZONE = "zone"
    REGION = "region"
    ACCOUNT = "account"
    CREDENTIALS = "credentials"
    API = "api"


class FleetError(Exception):
    """Everything of ours. The message says what happened, where, and what to do next."""

    slug: ClassVar[str] = "error"


class ProviderError(FleetError):
    """The provider could not do what was asked.

    Args:
        message: what happened, where, and what to do next; shown to people.
        scope: how far it reaches; that scope is not tried again until its cool-down has passed.
        retry_after_s: seconds after which trying again may help, where the provider said so.
    """

    slug: ClassVar[str] = "provider_error"
    default_scope: ClassVar[Scope] = Scope.PLACEMENT

    def __init__(self, message: str, *, scope: Scope | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.scope = self.default_scope if scope is None else scope
        self.retry_after_s = retry_after_s


class OutOfCapacity(ProviderError):
    """There is no such machine there just now (stock-out, spot not fulfilled)."""

    slug: ClassVar[str] = "out_of_capacity"


class QuotaExceeded(ProviderError):
    """The account may not have more of this."""

    slug: ClassVar[str] = "quota_exceeded"
    default_scope: ClassVar[Scope] = Scope.REGION


class Throttled(ProviderError):
    """The API wants fewer calls; capacity is not blamed."""

    slug: ClassVar[str] = "throttled"
    default_scope: ClassVar[Scope] = Scope.API


class CredentialsRefused(ProviderError):
    """The provider refuses our credentials or a permission is missing."""

    slug: ClassVar[str] = "credentials_refused"
    default_scope: ClassVar[Scope] = Scope.CREDENTIALS


class BadParameters(ProviderError):
    """The request can never succeed as it is written."""

    slug: ClassVar[str] = "bad_parameters"


class ProviderUnavailable(ProviderError):
    """The API did not answer, or broke while answering; whether it acted is unknown."""

    slug: ClassVar[str] = "provider_unavailable"
    default_scope: ClassVar[Scope] = Scope.API


class SecretError(FleetError):
    """A job's secret could not be fetched."""

    slug: ClassVar[str] = "secret"


class SecretDenied(SecretError):
    """The provider refuses: the token, the role, a permission or the request itself is wrong."""

    slug: ClassVar[str] = "secret_denied"


class SecretNotFound(SecretError):
    """There is no such secret, version or field."""

    slug: ClassVar[str] = "secret_not_found"


class SecretUnavailable(SecretError):
    """The provider of secrets did not answer, or broke while answering."""

    slug: ClassVar[str] = "secret_unavailable"
