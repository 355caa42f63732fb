"""Which proxy a request goes through, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY as GitLab Runner reads them.

Rule: small letters win over capitals, loopback needs no proxy, and NO_PROXY names hosts, domains, addresses and
networks, each perhaps with a port, or `*` for all. An environment in which a web server may put HTTP_PROXY
(REQUEST_METHOD is set) is not believed.
"""

from __future__ import annotations

import base64
import ipaddress
import urllib.parse


class Proxy:
    """A proxy: where it is, and what it wants to hear."""

    def __init__(self, scheme: str, host: str, port: int, headers: dict) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.headers = headers


def proxy_for(scheme: str, host: str, port: int, environment: dict) -> Proxy | None:
    """The proxy for a request to this host, or None."""
    name = scheme + "_proxy"
    if name == "http_proxy" and environment.get("REQUEST_METHOD"):
        return None
    address = environment.get(name) or environment.get(name.upper())
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if not address or is_direct(host, port, excepted):
        return None
    return _parsed(address)


def is_direct(host: str, port: int, excepted: str) -> bool:
    """Whether a host needs no proxy."""
    host = host.lower().rstrip(".")
    if host == "localhost" or _is_loopback(host):
        return True
    return any(_means(entry.strip().lower(), host, port) for entry in excepted.split(",") if entry.strip())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _means(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except (ValueError, TypeError):
            return False
    name, _, wanted = entry.rpartition(":")
    if wanted.isdigit() and (":" not in name or name.startswith("[")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]").lstrip("*").rstrip(".")
    if entry.startswith("."):
        return host.endswith(entry)
    return host == entry or host.endswith("." + entry)


def _parsed(address: str) -> Proxy | None:
    parts = urllib.parse.urlsplit(address if "://" in address else "http://" + address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    if not parts.hostname:
        return None
    headers = {}
    if parts.username is not None:
        pair = urllib.parse.unquote(parts.username) + ":" + urllib.parse.unquote(parts.password or "")
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.scheme, parts.hostname, port, headers)
