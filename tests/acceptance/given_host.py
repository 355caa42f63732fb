"""A given host for static pools: a real OpenSSH server behind a relay that can be cut, with its own home and boot id.

Everything that the host runs carries its mark, so it can be switched off like a machine: at once, with all processes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pathlib
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import threading
from typing import Self

from fleet.machine.keys import make_key_pair
from fleet.places.local.processes import MARK, end_all, marked, processes
from tests.acceptance.manager import wait_until
from tests.contract.machine.openssh import free_port

POOL = """
  [runners.autoscaler]
  plugin = "static"
  capacity_per_instance = {capacity}
  update_interval = "1s"
  update_interval_when_expecting = "500ms"
  {pool_keys}
  [runners.autoscaler.plugin_config]
  hosts = [{hosts}]
  [runners.autoscaler.fleet]
  {fleet_keys}
  [[runners.autoscaler.policy]]
  idle_count = 1
  idle_time = "10m"
"""


def static_pool(*hosts: str, capacity: int = 1, pool_keys: str = "", fleet_keys: str = "") -> str:
    """A pool of these hosts, for `Manager(pool=...)`."""
    return POOL.format(hosts=", ".join(hosts), capacity=capacity, pool_keys=pool_keys, fleet_keys=fleet_keys)


class Relay:
    """Passes bytes between whoever connects to it and one port of this host; the test may cut it."""

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.is_cut = False
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection with a reset, and let no other come up."""
        with self._lock:
            self.is_cut = True
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                self.connections += 1
                self._begin(near)

    def _begin(self, near: socket.socket) -> None:
        try:
            if self.is_cut:
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self.leads_to), 5)
            far.settimeout(None)
        except OSError:
            _reset(near)
            return
        with self._lock:
            self._pairs.append((near, far))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
        return
    _reset(one, other)


def _reset(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class GivenHost:
    """One host; `environment` is what its sshd gives to every session, besides what a host of ours needs."""

    def __init__(
        self, folder: pathlib.Path, *, home: pathlib.Path | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.name = f"given-{secrets.token_hex(4)}"
        self.home = home or folder / "home"
        self.environment = environment or {}
        self.client, self.host_key = make_key_pair(), make_key_pair()
        self.sshd_port = free_port()
        self.relay = Relay(self.sshd_port)
        self.boot_id = ""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if str(self.home).startswith(str(self.folder)):
            self.home.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("host_key", self.host_key.private),
            ("client_key", self.client.private),
            ("authorized_keys", f"{self.client.public}\n"),
        ):
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o600)
        if os.geteuid() == 0:
            pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.relay.close()
        self.power_off()

    def boot(self) -> None:
        """Switch it on; on return its SSH server listens."""
        self.boot_id = secrets.token_hex(8)
        self._start_server()
        for _ in range(4):
            wait_until(lambda: self._has_died() or self._listens(), 20, "the SSH server")
            if not self._has_died():
                return
            self.sshd_port = free_port()  # somebody has taken the one from before
            self.relay.leads_to = self.sshd_port
            self._start_server()
        raise AssertionError(self.log())

    def _start_server(self) -> None:
        given = {"HOME": str(self.home), "FLEET_BOOT_ID": self.boot_id, MARK: self.name, "FLEET_NO_SUDO": "1"}
        values = " ".join(f'"{key}={value}"' for key, value in (given | self.environment).items())
        config = self.folder / "sshd_config"
        lines = (
            f"Port {self.sshd_port}",
            "ListenAddress 127.0.0.1",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            *self.lines(),
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "LogLevel VERBOSE",
            f"SetEnv {values}",
            "",
        )
        config.write_text("\n".join(lines))
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert program, "sshd is missing: ./dev test installs openssh-server"
        self.process = subprocess.Popen(
            [program, "-D", "-f", str(config), "-E", str(self.folder / "log")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def lines(self) -> tuple[str, ...]:
        """What its sshd_config says of files."""
        return (f"HostKey {self.folder / 'host_key'}", f"PidFile {self.folder / 'pid'}")

    def power_off(self) -> None:
        """All its processes end at once."""
        if self.process is not None:
            for pid in self._sessions():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait(10)
        assert end_all(self.running, within_s=10)

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    def running(self) -> set[int]:
        """What runs on it for others: everything with its mark or in its folder."""
        return marked(self.name, str(self.folder))

    def entry(self, **changed: str) -> str:
        """Its line in `hosts` of a static pool."""
        values = {
            "name": self.name,
            "address": "127.0.0.1",
            "user": getpass.getuser(),
            "key_path": str(self.folder / "client_key"),
            "host_key": self.host_key.public,
        } | changed
        text = ", ".join(f'{key} = "{value}"' for key, value in values.items())
        return f"{{ port = {self.relay.port}, {text} }}"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _sessions(self) -> list[int]:
        """The server's processes of open connections, which carry no mark."""
        assert self.process is not None
        return [each.pid for each in processes() if each.parent == self.process.pid]

    def _has_died(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def _listens(self) -> bool:
        """Whether an SSH server answers there, and not whoever got the port meanwhile."""
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.settimeout(5)
            probe.connect(("127.0.0.1", self.sshd_port))
            return probe.recv(4) == b"SSH-"
        return False
