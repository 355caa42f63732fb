"""What can go wrong between the manager and a machine, as types.

    FleetError
    +- MachineError
       +- SshError                 no SSH connection could be made
       |  +- Unreachable           refused, no route, no answer in time, or it accepts and says nothing
       |  +- HostKeyMismatch       the machine is not the one we know; nothing secret was sent to it
       |  +- HostKeyUnknown        no key of the machine is known and nobody allowed trusting the first one
       |  +- AuthRefused           the machine does not let us in
       |  +- BadSshKey             our own key cannot be used
       +- BootstrapFailed          logged in, but the agent could not be brought to life
       |  +- NoPython              no usable Python there
       |  +- NoSpace               the home directory cannot be written
       +- ChannelClosed            the agent channel has ended; connect again and follow
       +- ChannelTimeout           the agent did not answer in time; the channel still stands
       +- AgentError               the agent refused a request; `slug_of_agent` says why

Each message says what happened, where, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar

from fleet.sdk.errors import FleetError


class MachineError(FleetError):
    """Something between the manager and a machine."""

    slug: ClassVar[str] = "machine_error"


class SshError(MachineError):
    """No SSH connection could be made."""

    slug: ClassVar[str] = "ssh_error"


class Unreachable(SshError):
    """Nothing there answers as an SSH server in time; trying again may help."""

    slug: ClassVar[str] = "ssh_unreachable"


class HostKeyMismatch(SshError):
    """The machine's host key is none of those we know. Nothing secret has been sent."""

    slug: ClassVar[str] = "host_key_mismatch"

    def __init__(self, *, where: str, expected: tuple[str, ...], got: str) -> None:
        known = ", ".join(expected)
        super().__init__(
            f"{where} shows the host key {got}, expected {known}. Another machine may be answering there; "
            "no login was tried. If the host was made anew, put its new key in the configuration"
        )
        self.where = where
        self.expected = expected
        self.got = got


class HostKeyUnknown(SshError):
    """No key of the machine is known, and trusting the first one was not allowed."""

    slug: ClassVar[str] = "host_key_unknown"

    def __init__(self, *, where: str) -> None:
        super().__init__(
            f"no host key of {where} is known, so it was not connected to. Give host_key or known_hosts_file, "
            "or set trust_on_first_use = true"
        )
        self.where = where


class AuthRefused(SshError):
    """The machine does not let us in."""

    slug: ClassVar[str] = "ssh_auth_refused"


class BadSshKey(SshError):
    """A key of ours cannot be read or used."""

    slug: ClassVar[str] = "bad_ssh_key"


class BootstrapFailed(MachineError):
    """Logged in, but the agent could not be brought to life; `output` is the end of what the machine said."""

    slug: ClassVar[str] = "bootstrap_failed"

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class NoPython(BootstrapFailed):
    """No usable Python there."""

    slug: ClassVar[str] = "no_python"


class NoSpace(BootstrapFailed):
    """The home directory cannot be written, or the disk is full."""

    slug: ClassVar[str] = "no_space"


class ChannelClosed(MachineError):
    """The agent channel has ended; the jobs on the machine go on."""

    slug: ClassVar[str] = "channel_closed"


class ChannelTimeout(MachineError):
    """The agent did not answer in time; the channel still stands."""

    slug: ClassVar[str] = "channel_timeout"


class AgentError(MachineError):
    """The agent refused a request.

    Attributes:
        slug_of_agent: the agent's own word for it, from the frame table (`stale_epoch`, `cleaned`, ...).
    """

    slug: ClassVar[str] = "agent_error"

    def __init__(self, slug_of_agent: str, message: str) -> None:
        super().__init__(f"{slug_of_agent}: {message}" if message else slug_of_agent)
        self.slug_of_agent = slug_of_agent
        self.message = message
