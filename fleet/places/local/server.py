"""The SSH server of a local machine: paramiko's server side, one key for itself and one that it lets in.

Only `exec` is served: the command runs by a shell in the machine's home, its three streams are relayed with
back-pressure (a full channel stops the reader of the pipe), and its exit status is sent when its output has ended.
Threads sleep until there is something to do.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from fleet.places.local.children import Child, Children

_PIECE = 64 * 1024
_IDLE_S = 60.0  # how often a sleeping connection wakes up


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the server of one machine needs.

    Attributes:
        new_host_key: once this file is there, its key is shown instead of `host_key`.
    """

    host_key: str = field(repr=False)
    client_public_key: str
    user: str
    shell: str
    home: str
    new_host_key: Path
    environment: Mapping[str, str]


class Server:
    """Serves the connections that the machine's main loop accepts."""

    def __init__(self, setting: Setting, children: Children) -> None:
        self._setting = setting
        self._children = children
        self._host_key = paramiko.Ed25519Key.from_private_key(io.StringIO(setting.host_key))
        self._transports: list[_Transport] = []

    def serve(self, sock: socket.socket) -> None:
        """Take over one accepted connection."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = _Transport(sock)
        transport.add_server_key(self._key_of_now())
        self._transports = [each for each in self._transports if each.is_active()]
        self._transports.append(transport)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            # With an event the call returns at once; the connection goes on in its own thread.
            transport.start_server(event=threading.Event(), server=_Login(self._setting, self._children, transport))

    def _key_of_now(self) -> paramiko.PKey:
        """The agent may have replaced the key since the last connection."""
        with contextlib.suppress(OSError, paramiko.SSHException, ValueError):
            self._host_key = paramiko.Ed25519Key.from_private_key_file(str(self._setting.new_host_key))
        return self._host_key

    @property
    def has_contact(self) -> bool:
        """Whether somebody is logged in."""
        return any(each.is_active() and each.is_authenticated() for each in self._transports)

    @property
    def host_key(self) -> str:
        """The public key line that clients will see."""
        return f"{self._host_key.get_name()} {self._host_key.get_base64()}"


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """A connection that starts to relay a command only when the client has been told that it was started.

    A short command could end first, and a client that sees the channel closed before the answer to its request takes
    the request for refused.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.starting: list[_Relay] = []

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)
        if self.starting and threading.current_thread() is self:
            starting, self.starting = self.starting, []
            for relay in starting:
                relay.start()


class _Login(paramiko.ServerInterface):  # type: ignore[misc]
    """paramiko's questions about one connection."""

    def __init__(self, setting: Setting, children: Children, transport: _Transport) -> None:
        self._setting = setting
        self._children = children
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002  paramiko's own shape
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        wanted = self._setting.client_public_key.split()[:2]
        if username == self._setting.user and [key.get_name(), key.get_base64()] == wanted:
            self._transport.sock.settimeout(_IDLE_S)
            return int(paramiko.AUTH_SUCCESSFUL)
        return int(paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002  paramiko's own shape
        if kind == "session":
            return int(paramiko.OPEN_SUCCEEDED)
        return int(paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._transport.accept(0.0)  # paramiko queues each channel for `accept`, which nobody else calls
        setting = self._setting
        try:
            child = self._children.start(
                [setting.shell, "-c", os.fsdecode(command)], env=setting.environment, cwd=setting.home
            )
        except (OSError, ValueError):
            return False
        self._transport.starting.append(_Relay(channel, child))
        return True


class _Relay:
    """The three streams of one command."""

    def __init__(self, channel: paramiko.Channel, child: Child) -> None:
        self._channel = channel
        self._child = child

    def start(self) -> None:
        errors = threading.Thread(
            target=self._send, args=(self._child.stderr, self._channel.sendall_stderr), daemon=True
        )
        errors.start()
        threading.Thread(target=self._receive, daemon=True).start()
        threading.Thread(target=self._send_output, args=(errors,), daemon=True).start()

    def _send_output(self, errors: threading.Thread) -> None:
        self._send(self._child.stdout, self._channel.sendall)
        errors.join()
        code = self._child.exit_code.get()
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            # A shell's word for "ended by a signal", as SSH has no number for it.
            self._channel.send_exit_status(code if code >= 0 else 128 - code)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()

    def _send(self, fd: int, send: object) -> None:
        assert callable(send)
        try:
            while data := os.read(fd, _PIECE):
                send(data)
        except (paramiko.SSHException, EOFError, OSError):
            pass  # the client has gone: closing our end tells the command
        finally:
            os.close(fd)

    def _receive(self) -> None:
        fd = self._child.stdin
        try:
            while data := self._channel.recv(_PIECE):
                _write_all(fd, data)
        except (paramiko.SSHException, EOFError, OSError):
            pass  # the command has closed its input, or has ended
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    with memoryview(data) as view:
        at = 0
        while at < len(view):
            at += os.write(fd, view[at:])
