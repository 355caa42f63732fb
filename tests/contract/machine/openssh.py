"""A real OpenSSH server on a private port with keys and configuration of its own."""

from __future__ import annotations

import getpass
import os
import pathlib
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Self

from fleet.machine.keys import make_key_pair
from fleet.machine.target import SshTarget
from fleet.places.local.processes import descendants
from tests.contract.machine.local_machine import until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class OpenSsh:
    def __init__(self, folder: pathlib.Path, *lines: str) -> None:
        self.folder = folder
        self.lines = lines
        self.client, self.host_key = make_key_pair(), make_key_pair()
        self.port = free_port()
        # A home of its own: sshd takes HOME from the password file, a forced command replaces it.
        self.home = folder / "home"

    def __enter__(self) -> Self:
        program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert program, "sshd is missing: ./dev test installs openssh-server"
        self.home.mkdir(parents=True)
        key = self.folder / "host_key"
        key.write_text(self.host_key.private)
        key.chmod(0o600)
        keys = self.folder / "authorized_keys"
        keys.write_text(f"{self.client.public}\n")
        keys.chmod(0o600)
        config = self.folder / "sshd_config"
        config.write_text(
            "\n".join(
                (
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {key}",
                    f"AuthorizedKeysFile {keys}",
                    f"PidFile {self.folder / 'pid'}",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PermitRootLogin prohibit-password",
                    "LogLevel VERBOSE",
                    f"SetEnv HOME={self.home}",
                    *self.lines,
                    "",
                )
            )
        )
        if os.getuid() == 0:
            pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        self.log = self.folder / "log"
        self.process = subprocess.Popen(
            [program, "-D", "-f", str(config), "-E", str(self.log)], stdin=subprocess.DEVNULL, start_new_session=True
        )
        until(self._listens)
        return self

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    @property
    def target(self) -> SshTarget:
        return SshTarget(
            host="127.0.0.1",
            port=self.port,
            user=getpass.getuser(),
            private_key=self.client.private,
            host_keys=(self.host_key.public,),
            connect_timeout_s=10.0,
        )

    def hits(self, words: Sequence[str]) -> int:
        """How many lines of the server's log hold all these words."""
        return sum(all(word in line for word in words) for line in self.log.read_text().splitlines())

    def signal_sessions(self, number: int) -> None:
        """Send a signal to the processes that serve the open connections."""
        for pid in descendants({self.process.pid}):
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip().startswith("sshd"):
                os.kill(pid, number)
