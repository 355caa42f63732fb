"""The contract of a store for job caches: it signs addresses, and machines transfer by them.

The store's own keys stay in the manager. What a machine gets is an address for one object and one method, with the
headers that belong to it, and it ends by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class CacheMethod(StrEnum):
    """What an address is good for."""

    GET = "GET"
    PUT = "PUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSetting:
    """What a plugin is given to make a cache store.

    Attributes:
        runner: whose it is, for messages.
        table: the table `[runners.cache.<kind>]` with GitLab Runner's keys (`BucketName` and so on) and defaults;
            keys that are not set are absent. It holds secrets in clear; paths in it are absolute.
    """

    runner: str
    table: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedUrl:
    """An address that whoever has it may use, until it ends.

    Attributes:
        url: the address; a secret.
        headers: to be sent with the request exactly so, and no others that the store would have to know of.
        expires_at: when it really ends (UTC): not after the credentials that signed it.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires_at: datetime


class CacheStore(Protocol):
    """Signs for one bucket or container. Any thread may call it."""

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        """An address for one object.

        It may take seconds (credentials are fetched), and is bounded by 60 s. Whether the object exists is not asked.

        Args:
            method: `GET` downloads, `PUT` replaces the object in one request.
            name: of the object: parts with `/` between, no leading one.
            now: the instant from which `valid_s` counts, UTC.
            valid_s: seconds for which it is wanted. A store that cannot sign for so long signs for as long as it can
                and says so in `expires_at`.

        Raises:
            CredentialsRefused: there are no credentials, or they may not do this.
            BadParameters: the table is wrong.
            ProviderUnavailable: who gives credentials did not answer.
        """

    def close(self) -> None:
        """Let go of connections; nothing is asked of the store afterwards."""
