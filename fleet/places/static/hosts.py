"""The hosts of a static pool as written in `plugin_config`, read strictly: every error names its key.

    [runners.autoscaler.plugin_config]
    user = "ci"                              # for hosts that name none; so are key_path, known_hosts_file,
    jump = ["ops@gate.example:22"]           # trust_on_first_use and jump
    hosts = [
      "10.0.0.4",
      "build@10.0.0.5:2222",
      { name = "mac", address = "10.0.0.6", port = 22, user = "ci", host_key = "ssh-ed25519 AAAA...",
        jump = [{ address = "gate.example", user = "ops", host_key = "ssh-ed25519 AAAA..." }] },
    ]

`host_key` and `jump` may be one or a list. A host key is a public key line; one of them must be shown by the host.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from fleet.sdk import BadParameters, SshEndpoint

_TEXTS = frozenset({"user", "key_path", "password", "known_hosts_file"})
_FOR_ALL = _TEXTS | {"trust_on_first_use", "jump"}
_OF_HOP = _FOR_ALL | {"address", "port", "host_key"}
_OF_HOST = _OF_HOP | {"name"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One given host: its name is its identity."""

    name: str
    endpoint: SshEndpoint


def read_hosts(config: Mapping[str, Any], pool: str) -> tuple[Host, ...]:
    """The hosts of a pool, in the order written.

    Raises:
        BadParameters: a key is unknown, missing or wrong, or two hosts have one name.
    """
    at = f"pool {pool!r}: plugin_config"
    _known_only(config, _FOR_ALL | {"hosts"}, at)
    defaults = _endpoint({**{key: value for key, value in config.items() if key != "hosts"}, "address": "-"}, at, None)
    written = config.get("hosts")
    if not isinstance(written, list | tuple) or not written:
        raise BadParameters(f'{at}.hosts must be a list of at least one host, such as ["ci@10.0.0.5:22"]')
    hosts = tuple(_host(entry, f"{at}.hosts[{index}]", defaults) for index, entry in enumerate(written))
    seen: set[str] = set()
    for host in hosts:
        if host.name in seen:
            raise BadParameters(f"{at}.hosts: two hosts are named {host.name!r}; give each its own name")
        seen.add(host.name)
    return hosts


def _host(entry: Any, at: str, defaults: SshEndpoint) -> Host:
    if isinstance(entry, str):
        endpoint = _from_text(entry, at, defaults)
        return Host(name=_default_name(endpoint), endpoint=endpoint)
    if not isinstance(entry, Mapping):
        raise BadParameters(f"{at} must be text (user@host:port) or a table, not {entry!r}")
    _known_only(entry, _OF_HOST, at)
    endpoint = _endpoint(entry, at, defaults)
    name = entry.get("name", _default_name(endpoint))
    if not isinstance(name, str) or not name:
        raise BadParameters(f"{at}.name must be text, not {name!r}")
    return Host(name=name, endpoint=endpoint)


def _endpoint(entry: Mapping[str, Any], at: str, defaults: SshEndpoint | None) -> SshEndpoint:
    """A table as an endpoint; what it does not say is taken from `defaults`."""
    for key in sorted(_TEXTS | {"address"}):
        if key in entry and (not isinstance(entry[key], str) or not entry[key]):
            raise BadParameters(f"{at}.{key} must be text")
    if "address" not in entry:
        raise BadParameters(f"{at}.address is missing: the host's name or address")
    own = SshEndpoint(
        host=entry["address"],
        port=_port(entry.get("port", 22), at),
        user=entry.get("user"),
        key_path=entry.get("key_path"),
        password=entry.get("password"),
        host_keys=_host_keys(entry.get("host_key", ()), at),
        known_hosts_file=entry.get("known_hosts_file"),
        trust_on_first_use=_flag(entry.get("trust_on_first_use", False), at),
    )
    if defaults is None:
        return dataclasses.replace(own, jump=_jump(entry.get("jump", ()), at, own))
    own = _filled(own, defaults)
    return dataclasses.replace(own, jump=_jump(entry["jump"], at, defaults) if "jump" in entry else defaults.jump)


def _filled(own: SshEndpoint, defaults: SshEndpoint) -> SshEndpoint:
    has_login = own.key_path is not None or own.password is not None
    return dataclasses.replace(
        own,
        user=own.user or defaults.user,
        key_path=own.key_path if has_login else defaults.key_path,
        password=own.password if has_login else defaults.password,
        known_hosts_file=own.known_hosts_file or defaults.known_hosts_file,
        trust_on_first_use=own.trust_on_first_use or defaults.trust_on_first_use,
    )


def _jump(written: Any, at: str, defaults: SshEndpoint) -> tuple[SshEndpoint, ...]:
    entries = written if isinstance(written, list | tuple) else (written,)
    # Hops stand in one list, the outermost first: a hop has none of its own.
    plain = dataclasses.replace(defaults, jump=())
    return tuple(_hop(entry, f"{at}.jump[{index}]", plain) for index, entry in enumerate(entries))


def _hop(entry: Any, at: str, defaults: SshEndpoint) -> SshEndpoint:
    if isinstance(entry, str):
        return _from_text(entry, at, defaults)
    if not isinstance(entry, Mapping):
        raise BadParameters(f"{at} must be text (user@host:port) or a table, not {entry!r}")
    _known_only(entry, _OF_HOP - {"jump"}, at)
    return _endpoint(entry, at, defaults)


def _from_text(text: str, at: str, defaults: SshEndpoint) -> SshEndpoint:
    user, _, rest = text.strip().rpartition("@")
    host, port = rest, "22"
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        port = after.removeprefix(":") or "22"
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if not host:
        raise BadParameters(f"{at} = {text!r} names no host; write user@host:port")
    number = _port(int(port) if port.isascii() and port.isdigit() else port, at)
    own = SshEndpoint(host=host, port=number, user=user or None)
    return dataclasses.replace(_filled(own, defaults), jump=defaults.jump)


def _default_name(endpoint: SshEndpoint) -> str:
    return endpoint.host if endpoint.port == 22 else f"{endpoint.host}:{endpoint.port}"


def _host_keys(written: Any, at: str) -> tuple[str, ...]:
    lines = written if isinstance(written, list | tuple) else (written,)
    for line in lines:
        if not isinstance(line, str) or len(line.split()) < 2 or "PRIVATE" in line:
            raise BadParameters(f"{at}.host_key must be a public key line such as 'ssh-ed25519 AAAA...'")
    return tuple(lines)


def _port(written: Any, at: str) -> int:
    if not isinstance(written, int) or isinstance(written, bool) or not 0 < written < 65536:
        raise BadParameters(f"{at}.port must be a number from 1 to 65535, not {written!r}")
    return written


def _flag(written: Any, at: str) -> bool:
    if not isinstance(written, bool):
        raise BadParameters(f"{at}.trust_on_first_use must be true or false, not {written!r}")
    return written


def _known_only(entry: Mapping[str, Any], known: frozenset[str], at: str) -> None:
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(sorted(known))}"
            raise BadParameters(f"{at}.{key} is no setting of the plugin static; {hint}")
