"""The contract between the manager and a provider plugin.

A provider makes, lists and deletes machines. It is synchronous, asynchronous in effect (a machine may appear minutes
after `create` returns), eventually consistent, and idempotent by token. It keeps no state of its own: whatever it must
remember goes into the machine's tags, and every question is answered from the provider's own listing, so that a
manager killed at any point finds again what it made.

The manager calls from several threads, never twice at once for one account, and gives up on a call after
`ProviderInfo.call_timeout_s`. What a provider leaves to the manager: choosing placements, retrying, cooling down,
counting, deciding what to remove.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

TAG_STORE = "fleet-store"
TAG_POOL = "fleet-pool"
TAG_REQUEST = "fleet-request"


class MachineState(StrEnum):
    """What the provider says of a machine; the manager's own life-cycle is richer."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    DELETING = "deleting"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a provider can do beyond creating, listing and deleting.

    Attributes:
        hands_over_host_key: `CreateRequest.host_key` reaches the machine before its first SSH connection.
        tells_host_key: `Machine.host_key` is filled from a source that only the provider controls.
        fixed_inventory: the machines exist already and are neither created nor deleted (`static`, `host`).
        survives_dead_man: powering off by itself is right for these machines (never for fixed inventory).
    """

    hands_over_host_key: bool = False
    tells_host_key: bool = False
    fixed_inventory: bool = False
    survives_dead_man: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderInfo:
    """What the manager must know of a provider before it uses it.

    Attributes:
        name: the plugin's name, as in `plugin = "..."`.
        account: names the thing whose API budget and credentials are shared; two pools with one account share a lane.
        visibility_lag_s: seconds after which a created machine is sure to be in the listing.
        call_timeout_s: seconds after which the manager gives up waiting for one call.
        max_batch: the most machines that one `create` may ask for.
        abilities: see `Abilities`.
    """

    name: str
    account: str
    visibility_lag_s: float = 30.0
    call_timeout_s: float = 120.0
    max_batch: int = 1
    abilities: Abilities = field(default_factory=Abilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """An SSH host key pair made by the manager for one machine (OpenSSH formats)."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """One intent to have machines, committed before the provider is called.

    Attributes:
        token: the idempotency token; the same token with the same parameters makes no second machine, ever.
        count: how many machines.
        tags: must be on each machine from its first visible moment.
        placement: the placement's settings as written in the configuration (zone, type, spot, ...).
        user: the login user whose `authorized_keys` must hold `client_public_key`.
        client_public_key: OpenSSH public key of the manager, or None when the image has one already.
        host_key: the host key that the machine must present, where the provider can hand it over.
        agent_timeout_s: the dead-man: seconds without contact after which the machine must end by itself.
    """

    token: str
    count: int
    tags: Mapping[str, str]
    placement: Mapping[str, Any]
    user: str | None = None
    client_public_key: str | None = None
    host_key: HostKey | None = None
    agent_timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SshEndpoint:
    """How a given host is reached and entered, where that stands in `plugin_config` and not in the pool's own keys.

    Attributes:
        host: name or address.
        port: the SSH port.
        user: login user; None: the pool's.
        key_path: a file with our private key; None: the pool's.
        password: instead of a key.
        host_keys: public key lines; the host must show one of them.
        known_hosts_file: more of them.
        trust_on_first_use: with no host key known, take the first one shown.
        jump: hosts to go through, the outermost first.
    """

    host: str
    port: int = 22
    user: str | None = None
    key_path: str | None = None
    password: str | None = field(default=None, repr=False)
    host_keys: tuple[str, ...] = ()
    known_hosts_file: str | None = None
    trust_on_first_use: bool = False
    jump: tuple[SshEndpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeEndpoint:
    """The manager's own host: the agent is a child process, spoken to over a pipe and without SSH.

    Attributes:
        home: the agent's home directory.
    """

    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine as the provider's listing shows it.

    Attributes:
        machine_id: the provider's own identity of the machine.
        state: see `MachineState`.
        tags: as read back from the provider.
        address_internal: where it is reached inside, None while it has none.
        address_external: where it is reached from outside, None when it has none.
        port: the SSH port.
        user: login user, when the provider knows it.
        host_key: the machine's public host key, from a source that only the provider controls.
        placement: the name of the placement it is in, when the tags say so.
        reason: what the provider says of a failed or vanished machine.
        endpoint: the whole way in, when it is more than address, port, user and host key; then it is used instead.
    """

    machine_id: str
    state: MachineState
    tags: Mapping[str, str]
    address_internal: str | None = None
    address_external: str | None = None
    port: int = 22
    user: str | None = None
    host_key: str | None = None
    placement: str | None = None
    reason: str | None = None
    endpoint: SshEndpoint | PipeEndpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What `create` achieved.

    Attributes:
        machine_ids: the machines that now exist for this token (also those of an earlier, unanswered call).
        shortfall: why fewer than asked for were made; None when all were.
    """

    machine_ids: Sequence[str]
    shortfall: Exception | None = None


@runtime_checkable
class Provider(Protocol):
    """One configured use of a plugin: a pool's `plugin` and `plugin_config`."""

    def info(self) -> ProviderInfo:
        """Say who you are. Makes no call to the outside and never fails."""
        ...

    def create(self, request: CreateRequest) -> Created:
        """Make `request.count` machines, or find those that an earlier call with this token made.

        On return every id in the answer exists or is about to; a repeated call returns the same ids.

        Raises:
            ProviderError: nothing was made for this token, unless it is `ProviderUnavailable`: then it is unknown,
                and the manager calls again with the same token.
        """
        ...

    def list(self) -> Iterable[Machine]:
        """Yield every machine of the account that carries a `fleet-store` tag, all pages, of whatever store.

        A listing that cannot be completed must raise: a partial listing that ends quietly looks like lost machines.

        Raises:
            ProviderError: the listing is not complete.
        """
        ...

    def delete(self, machine_ids: Sequence[str]) -> None:
        """Ask for the end of these machines; what is absent counts as deleted.

        On return the deletion is asked for; `list` shows when it is done.

        Raises:
            ProviderError: at least one was not asked for; calling again with all of them must be safe.
        """
        ...

    def close(self) -> None:
        """Let go of threads and sockets. No machine is touched."""
        ...
