"""Where a machine is and how to get in: the whole of what `ssh.connect` needs, as one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from fleet.sdk.provider import Machine, SshEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """An SSH server, our way to log in to it, and how we know that it is the right one.

    Attributes:
        host: name or address.
        port: TCP port.
        user: login user.
        private_key: our private key as text; else
        key_path: a file with it; else
        password: a password. The ssh-agent is asked only with `use_ssh_agent`.
        passphrase: opens an encrypted `private_key` or `key_path`.
        host_keys: public key lines; the server must show one of them.
        known_hosts_file: more of them, in OpenSSH's format. `~/.ssh/known_hosts` is not read unless named here.
        trust_on_first_use: with no key known, take what the server shows; else the connection is refused.
        jump: hosts to go through, the outermost first, each with keys of its own.
        connect_timeout_s: for TCP and for SSH's own hand-shake, each.
        auth_timeout_s: for the login.
        send_timeout_s: a machine that takes no data for so long counts as dead.
        keepalive_s: a silent peer is asked for a sign of life by the kernel after so long; three unanswered end it.
    """

    host: str
    user: str
    port: int = 22
    private_key: str | None = field(default=None, repr=False)
    key_path: str | None = None
    password: str | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)
    use_ssh_agent: bool = False
    host_keys: tuple[str, ...] = ()
    known_hosts_file: str | None = None
    trust_on_first_use: bool = False
    jump: tuple[SshTarget, ...] = ()
    connect_timeout_s: float = 10.0
    auth_timeout_s: float = 15.0
    send_timeout_s: float = 30.0
    keepalive_s: float = 30.0

    @property
    def where(self) -> str:
        """`user@host:port`, with the way there, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        via = f" (through {', '.join(hop.where for hop in self.jump)})" if self.jump else ""
        return f"{self.user}@{host}:{self.port}{via}"

    def hop(self, text: str, *, host_keys: tuple[str, ...] = ()) -> SshTarget:
        """The jump host written as `user@host:port`, entered with this target's keys and time-outs."""
        user, host, port = parse_address(text)
        return dataclasses.replace(
            self, host=host, port=port or 22, user=user or self.user, host_keys=host_keys, jump=()
        )


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """User, host and port of `[user@]host[:port]`; an IPv6 address with a port stands in brackets.

    Raises:
        ValueError: there is no host, or the port is no port.
    """
    user, _, rest = text.strip().rpartition("@")
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError(f"not an address: {text!r}; write user@[address]:port")
        port = port[1:]
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if not host:
        raise ValueError(f"no host in {text!r}; write user@host:port")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"not a port in {text!r}: {port!r}")
    return user or None, host, int(port) if port else None


def target_of(machine: Machine, pool: SshTarget, *, use_external: bool = False) -> SshTarget:
    """The way to a machine of the provider's listing; `pool` says what the listing does not (its host is ignored).

    `pool` carries the pool's user, key, time-outs, and the host keys that the manager itself handed over.

    Raises:
        ValueError: the machine has no address of the wanted kind yet, or is no SSH server.
    """
    endpoint = machine.endpoint
    if isinstance(endpoint, SshEndpoint):
        return _entered(endpoint, pool)
    if endpoint is not None:
        raise ValueError(f"machine {machine.machine_id} is reached over a pipe and not by SSH")
    address = machine.address_external if use_external else machine.address_internal
    if address is None:
        raise ValueError(f"machine {machine.machine_id} has no {'external' if use_external else 'internal'} address")
    told = (machine.host_key,) if machine.host_key else ()
    return dataclasses.replace(
        pool,
        host=address,
        port=machine.port,
        user=machine.user or pool.user,
        host_keys=tuple(dict.fromkeys((*pool.host_keys, *told))),
    )


def _entered(endpoint: SshEndpoint, pool: SshTarget) -> SshTarget:
    """An endpoint as a target; what it does not say is the pool's. Its host keys are its own alone."""
    own_login = endpoint.key_path is not None or endpoint.password is not None
    return dataclasses.replace(
        pool,
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user or pool.user,
        private_key=None if own_login else pool.private_key,
        key_path=endpoint.key_path if own_login else pool.key_path,
        password=endpoint.password if own_login else pool.password,
        host_keys=endpoint.host_keys or pool.host_keys,
        known_hosts_file=endpoint.known_hosts_file or pool.known_hosts_file,
        trust_on_first_use=endpoint.trust_on_first_use or pool.trust_on_first_use,
        jump=tuple(_entered(hop, dataclasses.replace(pool, host_keys=(), jump=())) for hop in endpoint.jump)
        or pool.jump,
    )
