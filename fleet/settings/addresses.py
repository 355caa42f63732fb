"""Addresses in the configuration: `host:port`, with IPv6 hosts in brackets."""

from __future__ import annotations

import urllib.parse

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def address(value: str, default_port: int) -> str:
    """`host:port` with the default port where none is given; raises ValueError for what is no address."""
    try:
        parts = urllib.parse.urlsplit(f"//{value}")
        host, port = parts.hostname or "", default_port if parts.port is None else parts.port
    except ValueError:
        raise ValueError(f"{value!r} is not an address: write host:port, such as 127.0.0.1:{default_port}") from None
    if parts.path or parts.username or (not host and not value.startswith(":")):
        raise ValueError(f"{value!r} is not an address: write host:port, such as 127.0.0.1:{default_port}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(listen: str) -> bool:
    """True when only this host can reach the address."""
    return (urllib.parse.urlsplit(f"//{listen}").hostname or "") in LOOPBACK
