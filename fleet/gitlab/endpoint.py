"""One GitLab server as the settings name it: its address and the TLS files for it.

Rule: two runners with equal `Endpoint` values share one `GitLab`, hence one TLS context and one set of
connections. The address is normalised once, here; nobody else cuts or joins GitLab's addresses.
"""

from __future__ import annotations

import dataclasses

import httpx

from fleet.gitlab.errors import EndpointError


def _normalised(url: str) -> str:
    """The address without a trailing slash and without the `/ci` that very old settings still carry."""
    return url.strip().rstrip("/").removesuffix("/ci").rstrip("/")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server's address and the files that secure the way to it; raises `EndpointError` for a bad address."""

    url: str
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _normalised(self.url))
        for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
            object.__setattr__(self, name, getattr(self, name) or None)
        parsed = self.parsed
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise EndpointError(
                f"url {self.url!r} is not an http:// or https:// address: name the GitLab server in full"
            )
        if parsed.userinfo:
            raise EndpointError(f"url of {parsed.host} holds a user name or password: remove it, runners use tokens")
        if parsed.query or parsed.fragment:
            raise EndpointError(f"url {self.url!r} has a query or fragment: give the address of the server alone")

    @property
    def parsed(self) -> httpx.URL:
        """The address in parts."""
        try:
            return httpx.URL(self.url)
        except httpx.InvalidURL as exc:
            raise EndpointError(f"url {self.url!r} cannot be read: {exc}") from exc

    @property
    def host(self) -> str:
        """The host's name, as certificate files are named after it."""
        return self.parsed.host
