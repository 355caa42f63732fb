"""Which proxy, if any, stands between us and one GitLab server.

Rule: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` (lower case first) as the rest of the world reads them; loopback never
goes through a proxy. The environment is handed in; only plain `http://` proxies are spoken to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import httpx

from fleet.gitlab.errors import EndpointError


def proxy_for(url: httpx.URL, environment: Mapping[str, str]) -> httpx.URL | None:
    """The proxy's address, or None for the direct way; raises `EndpointError` for one we cannot use."""

    def setting(name: str) -> str:
        return environment.get(name) or environment.get(name.upper()) or ""

    found = setting(f"{url.scheme}_proxy") or setting("all_proxy")
    if not found or _is_exempt(url, setting("no_proxy")):
        return None
    try:
        proxy = httpx.URL(found if "://" in found else f"http://{found}")
    except httpx.InvalidURL as exc:
        raise EndpointError(f"the proxy for {url.scheme}:// in the environment is not an address: {exc}") from exc
    if proxy.scheme != "http" or not proxy.host:
        raise EndpointError(
            f"the proxy for {url.host} in the environment is {proxy.scheme}://{proxy.host}: only http:// proxies work"
        )
    return proxy


def _is_exempt(url: httpx.URL, exempt: str) -> bool:
    host = url.host.lower()
    if host == "localhost" or _is_loopback(host):
        return True
    port = url.port or (443 if url.scheme == "https" else 80)
    return any(_covers(entry.strip().lower(), host, port) for entry in exempt.split(",") if entry.strip())


def _covers(entry: str, host: str, port: int) -> bool:
    """Whether one entry of NO_PROXY (a name, a domain, a network, `*`, any with a port) means this host."""
    if entry == "*" or _holds(entry, host):
        return True
    name, _, wanted_port = entry.partition(":")
    if wanted_port and wanted_port != str(port):
        return False
    name = name.removeprefix("*").removeprefix(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _holds(network: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
