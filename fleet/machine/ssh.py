"""The doorway to SSH: the only module that knows Fabric and paramiko.

Fabric's `Connection` does configuration, authentication and gateways. What is ours: the host key is checked before
anything of us is sent, small packets go out at once (TCP_NODELAY), an idle connection wakes nobody, every wait ends,
and every failure is one of our own errors. `Connection.run` is never used: its cost is quadratic in the output. We
speak on channels of the transport.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any, Self

import fabric
import paramiko
from paramiko.config import SSHConfig

from fleet.machine.errors import AuthRefused, BadSshKey, HostKeyMismatch, HostKeyUnknown, SshError, Unreachable
from fleet.machine.keys import fingerprint, public_parts
from fleet.machine.pipe import RECV_BYTES, PipeClosed, PipeTimeout, Tail
from fleet.machine.target import SshTarget

# Every failure is told once, as our own error; paramiko would also print a traceback of its thread.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

IDLE_WAKE_S = 10.0  # paramiko looks at its socket's time-out only to notice re-keying and a stuck writer
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_DIGESTS = ("hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
_PIECE = 32 * 1024 - 64
# No file and no environment has a say in how we connect: settings come from the target alone.
_CONFIG = fabric.Config(lazy=True, ssh_config=SSHConfig(), overrides={"load_ssh_configs": False})


def connect(target: SshTarget) -> SshConnection:
    """Connect and log in, through the jump hosts if there are any.

    Raises:
        Unreachable: nothing answers there as an SSH server in time.
        HostKeyMismatch: it is not the machine we know; no login was tried.
        HostKeyUnknown: no key is known and none may be trusted; nothing was connected to.
        AuthRefused: the login was refused.
        BadSshKey: our own key or known_hosts_file is unusable.
    """
    hops = [_Hop(each) for each in (*target.jump, target)]
    opened: list[_Hop] = []
    try:
        for hop in hops:
            opened.append(hop)
            hop.open(opened[-2] if len(opened) > 1 else None)
    except BaseException:
        _close_all(opened)
        raise
    return SshConnection(target, opened)


class SshConnection:
    """A logged-in SSH connection. It holds its jump hosts' connections and closes them with itself."""

    def __init__(self, target: SshTarget, hops: list[_Hop]) -> None:
        self.target = target
        self._hops = hops

    @property
    def host_key(self) -> str:
        """The public key line that the server proved to hold."""
        return self._hops[-1].host_key

    @property
    def is_open(self) -> bool:
        """Whether the transport still stands, as far as it has noticed."""
        return all(hop.is_open for hop in self._hops)

    def open_pipe(self, command: str, *, timeout_s: float = 30.0) -> SshPipe:
        """Start `command` by the login user's shell, on a channel of its own.

        Raises:
            Unreachable: the connection is gone, or the server gives no channel in time.
        """
        hop = self._hops[-1]
        try:
            channel = hop.transport.open_session(timeout=timeout_s)
            channel.settimeout(self.target.send_timeout_s)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise Unreachable(
                f"{self.target.where} opened no session: {_said(exc)}. Connect again; "
                "if it stays so, look at MaxSessions and the log of its SSH server"
            ) from exc
        return SshPipe(channel, hop)

    def close(self) -> None:
        """Close it and the way to it. Never waits for the other side."""
        _close_all(self._hops)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SshPipe:
    """One program at the other end of a channel. See `fleet.machine.pipe.Pipe`."""

    def __init__(self, channel: paramiko.Channel, hop: _Hop) -> None:
        self._channel = channel
        self._hop = hop
        self._tail = Tail()

    @property
    def where(self) -> str:
        return self._hop.target.where

    def recv(self, timeout_s: float | None) -> bytes:
        if timeout_s is None:
            data = self._recv_some()
            while data is None:
                data = self._recv_some()
        else:
            self._channel.settimeout(max(timeout_s, 0.001))
            data = self._recv_some()
            self._channel.settimeout(self._hop.target.send_timeout_s)
        if data is None:
            raise PipeTimeout
        return data

    def _recv_some(self) -> bytes | None:
        try:
            data: bytes | None = self._channel.recv(RECV_BYTES)
        except TimeoutError:
            data = None
        # Unread standard error uses up the channel's window, and with none left no output could wake us.
        while self._channel.recv_stderr_ready():
            self._tail.add(self._channel.recv_stderr(RECV_BYTES))
        return data

    def send(self, data: bytes) -> None:
        self._hop.writing_since = time.monotonic()
        try:
            for at in range(0, len(data), _PIECE):
                self._channel.sendall(data[at : at + _PIECE])
                self._hop.writing_since = time.monotonic()
                if self._channel.closed:
                    raise PipeClosed(f"{self.where} has closed the channel")
        except TimeoutError as exc:
            raise PipeClosed(f"{self.where} took no data for {self._hop.target.send_timeout_s:g} s") from exc
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise PipeClosed(f"{self.where} is gone: {_said(exc)}") from exc
        finally:
            self._hop.writing_since = None

    def ending(self) -> str:
        channel = self._channel
        if channel.eof_received:
            channel.status_event.wait(1.0)  # OpenSSH tells the end of the output first, the exit status after it
        code = channel.recv_exit_status() if channel.exit_status_ready() else -1
        status = f"exit status {code}" if code >= 0 else ""
        gone = "" if self._hop.is_open else "the connection ended"
        return "; ".join(part for part in (gone or status, self._tail.text()) if part)

    def end_input(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.shutdown_write()

    def close(self) -> None:
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()

    def release(self) -> None:
        """Nothing is held that `close` has not given back."""


class _Hop:
    """One Fabric connection: the target's own or a jump host's."""

    def __init__(self, target: SshTarget) -> None:
        self.target = target
        self.writing_since: float | None = None
        self._expected = _expected_keys(target)
        self._fabric: fabric.Connection | None = None
        self.transport: paramiko.Transport = None

    def open(self, gateway: _Hop | None) -> None:
        self._fabric = fabric.Connection(
            host=self.target.host,
            user=self.target.user,
            port=self.target.port,
            config=_CONFIG,
            gateway=gateway._fabric if gateway else False,
            connect_kwargs=self._login(),
        )
        self._fabric.client.set_missing_host_key_policy(_KnownKeys(self.target, self._expected))
        with _translated(self.target, self._expected):
            self._fabric.open()
        self.transport = self._fabric.transport
        self.transport.sock.settimeout(IDLE_WAKE_S)
        self.transport.packetizer.set_keepalive(IDLE_WAKE_S, self._end_when_stuck)

    def _login(self) -> dict[str, Any]:
        target = self.target
        login: dict[str, Any] = {
            "timeout": target.connect_timeout_s,
            "banner_timeout": target.connect_timeout_s,
            "auth_timeout": target.auth_timeout_s,
            "channel_timeout": target.connect_timeout_s,
            "allow_agent": target.use_ssh_agent,
            "look_for_keys": False,
            "transport_factory": self._make_transport,
        }
        if target.private_key is not None or target.key_path is not None:
            login["pkey"] = _private_key(target)
        elif target.password is not None:
            login["password"] = target.password
        return login

    def _make_transport(self, sock: Any, **kwargs: Any) -> paramiko.Transport:
        if isinstance(sock, socket.socket):
            _tune(sock, self.target)
        transport = paramiko.Transport(sock, **kwargs)
        transport.handshake_timeout = self.target.connect_timeout_s
        options = transport.get_security_options()
        options.ciphers = tuple(name for name in _CIPHERS if name in options.ciphers)
        options.digests = tuple(name for name in _DIGESTS if name in options.digests)
        if self._expected:
            # The server must show a key of a kind that we know; it may hold others.
            options.key_types = _key_types(self._expected, options.key_types)
        return transport

    def _end_when_stuck(self) -> None:
        """End the connection when a write has hung in the kernel or a gateway: its caller must come back."""
        since = self.writing_since
        if since is not None and time.monotonic() - since > self.target.send_timeout_s:
            self.close()

    @property
    def is_open(self) -> bool:
        return self.transport is not None and self.transport.is_active()

    @property
    def host_key(self) -> str:
        return _line(self.transport.get_remote_server_key())

    def close(self) -> None:
        if self._fabric is None:
            return
        transport = self._fabric.client.get_transport()
        if transport is not None and isinstance(transport.sock, socket.socket):
            with contextlib.suppress(OSError):
                transport.sock.shutdown(socket.SHUT_RDWR)  # wakes paramiko's thread, which sleeps in recv
        self._fabric.client.close()


class _KnownKeys(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Lets the known keys pass. paramiko asks after the key exchange and before any login."""

    def __init__(self, target: SshTarget, expected: tuple[str, ...]) -> None:
        self._target = target
        self._expected = {public_parts(line)[1] for line in expected}
        self._lines = expected

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002  paramiko's own
        if self._expected and key.asbytes() not in self._expected:
            expected = tuple(fingerprint(line) for line in self._lines)
            raise HostKeyMismatch(where=self._target.where, expected=expected, got=fingerprint(_line(key)))


def _expected_keys(target: SshTarget) -> tuple[str, ...]:
    lines = list(target.host_keys)
    if target.known_hosts_file is not None:
        name = target.host if target.port == 22 else f"[{target.host}]:{target.port}"
        try:
            known = paramiko.HostKeys(target.known_hosts_file).lookup(name)
        except OSError as exc:
            raise BadSshKey(f"known_hosts_file cannot be read: {exc}. Give a readable file or host_key") from exc
        lines += [_line(key) for key in known.values()] if known else []
    for line in lines:
        try:
            public_parts(line)
        except ValueError as exc:
            raise BadSshKey(f"the host key given for {target.where} is of no use: {exc}") from exc
    if not lines and not target.trust_on_first_use:
        raise HostKeyUnknown(where=target.where)
    return tuple(lines)


def _key_types(expected: tuple[str, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    kinds = {line.split()[0] for line in expected}
    if "ssh-rsa" in kinds:
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(name for name in offered if name in kinds) or offered


def _private_key(target: SshTarget) -> paramiko.PKey:
    text = target.private_key
    try:
        if text is None:
            assert target.key_path is not None
            with open(target.key_path, encoding="utf-8") as file:
                text = file.read()
        for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
            with contextlib.suppress(paramiko.SSHException, ValueError, IndexError):
                return kind.from_private_key(io.StringIO(text), password=target.passphrase)
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSshKey(f"the private key for {target.where} cannot be read: {exc}") from exc
    source = target.key_path if target.private_key is None else "given as text"
    raise BadSshKey(
        f"the private key for {target.where} ({source}) is no usable ed25519, ECDSA or RSA key, "
        "or its passphrase is missing or wrong"
    )


def _tune(sock: socket.socket, target: SshTarget) -> None:
    """Small packets at once; a dead peer is noticed by the kernel, which costs us no wake-ups."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(target.keepalive_s)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(target.keepalive_s / 3)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2 * target.keepalive_s * 1000))


@contextlib.contextmanager
def _translated(target: SshTarget, expected: tuple[str, ...]) -> Iterator[None]:
    """What paramiko and the socket raise, as ours and with what to do next."""
    where = target.where
    try:
        yield
    except SshError:
        raise
    except paramiko.BadAuthenticationType as exc:
        raise AuthRefused(
            f"{where} allows only {', '.join(exc.allowed_types)}, and that is not what we have. "
            "Give a key or password that fits"
        ) from exc
    except paramiko.AuthenticationException as exc:
        raise AuthRefused(
            f"{where} refuses our login: {_said(exc)}. Put the public key into the user's authorized_keys, "
            "or correct user and key"
        ) from exc
    except paramiko.ssh_exception.IncompatiblePeer as exc:
        if expected and "host key" in str(exc):
            got = "of another kind"
            raise HostKeyMismatch(where=where, expected=tuple(fingerprint(line) for line in expected), got=got) from exc
        raise Unreachable(f"{where} has no SSH algorithms in common with us: {_said(exc)}") from exc
    except (paramiko.ChannelException, paramiko.SSHException, EOFError, OSError) as exc:
        raise Unreachable(f"{where} is not reached: {_why(exc)}") from exc


def _why(exc: BaseException) -> str:
    said = _said(exc)
    if isinstance(exc, paramiko.ChannelException):
        return f"the jump host before it cannot or may not connect to it ({said})"
    if isinstance(exc, socket.gaierror):
        return f"its name is not known ({said})"
    if isinstance(exc, TimeoutError) or "timed out" in said:
        return "no answer in time; look at address, firewall and routes"
    if isinstance(exc, OSError):
        return f"{said}; look at address and port, and whether its SSH server runs"
    return f"something accepts there and does not speak SSH in time ({said}); look at the port and the server's log"


def _said(exc: BaseException) -> str:
    return str(exc).strip() or type(exc).__name__


def _line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def _close_all(hops: list[_Hop]) -> None:
    for hop in reversed(hops):
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            hop.close()
