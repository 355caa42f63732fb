"""A Docker Engine of the tests' own: `start`, `stop`, `restart`, `kill`, and nothing of it is left after `discard`.

Socket, data, state and process file are in one directory, its bridges have addresses that nobody else on this host
has, and its control groups are below one of their own. It writes no firewall rules (another engine of this host would
lose its own by that) but one of ours, by which its containers reach each other whatever this host's policy is. They
reach this host, and nothing beyond. Needs root and Debian's
`docker.io`; nothing is ever skipped: without them a test fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

START_S = 60.0
STOP_S = 30.0
RANGES = range(201, 251)  # second number of 10.N.0.0/16
MOUNTS = pathlib.Path("/proc/self/mounts")
RIGHTS = {16: "CAP_SYS_MODULE", 17: "CAP_SYS_RAWIO", 22: "CAP_SYS_BOOT", 24: "CAP_SYS_RESOURCE", 39: "CAP_BPF"}
CGROUPS = pathlib.Path("/sys/fs/cgroup")


class NoDocker(Exception):
    """The tests of containers need an engine, and there is none."""


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NoDocker(f"there is no program {name}: install Debian's `{package}` (`./dev test` does it)")
    return found


def _mounts() -> list[tuple[str, str]]:
    """(where, kind) of every mount, in the order in which they were made."""
    fields = [line.split() for line in MOUNTS.read_text(encoding="utf-8").splitlines()]
    return [(each[1].replace("\\040", " "), each[2]) for each in fields]


def _take_range() -> tuple[int, IO[str]]:
    """A range of addresses that nobody on this host uses, and the lock that keeps it."""
    told = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout
    used = {info["local"] for link in json.loads(told) for info in link.get("addr_info", ())}
    for number in RANGES:
        if any(address.startswith(f"10.{number}.") for address in used):
            continue
        lock = open(f"{tempfile.gettempdir()}/fleet-docker-range-{number}", "w", encoding="utf-8")  # noqa: SIM115  kept
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number, lock
        lock.close()
    raise NoDocker("every range of addresses for the engines of tests is taken")


def _settings(home: pathlib.Path) -> dict[str, Any]:
    """Where this host itself lacks a right (a test machine may), `privileged` is all rights but that one."""
    held = int(pathlib.Path("/proc/self/status").read_text(encoding="ascii").partition("CapBnd:")[2].split()[0], 16)
    lacking = [name for bit, name in RIGHTS.items() if not held >> bit & 1]
    if not lacking:
        return {}
    runtime = home / "runc-without"
    edits = "".join(f" -e 's/\"{name}\",//g' -e 's/,\"{name}\"//g'" for name in lacking)
    runtime.write_text(
        '#!/bin/sh\nbundle=; previous=\nfor word do\n  [ "$previous" = --bundle ] && bundle=$word\n  previous=$word\n'
        f'done\n[ -z "$bundle" ] || sed -i{edits} "$bundle/config.json"\nexec runc "$@"\n',
        encoding="utf-8",
    )
    runtime.chmod(0o755)
    return {"runtimes": {"runc-without": {"path": str(runtime)}}, "default-runtime": "runc-without"}


def _end_with_parent() -> None:
    """A test process that is killed takes its engine along."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@dataclasses.dataclass
class Engine:
    """One dockerd in a directory of its own."""

    home: pathlib.Path
    number: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    containerd: subprocess.Popen[bytes] | None = None
    _range: IO[str] | None = None
    _own_cgroups: bool = False

    @classmethod
    def create(cls, home: pathlib.Path | None = None, *, options: Sequence[str] = ()) -> Engine:
        """Prepare one; it does not run yet. `options` are dockerd's."""
        if os.geteuid() != 0:
            raise NoDocker("the tests of containers start an engine of their own, which only root may")
        if home is None:
            home = pathlib.Path(tempfile.mkdtemp(prefix="fleet-docker-", dir="/tmp"))
        number, lock = _take_range()
        engine = cls(home=home, number=number, options=tuple(options), _range=lock)
        if not any(kind in {"cgroup", "cgroup2"} for _, kind in _mounts()):
            subprocess.run(["mount", "-t", "cgroup2", "none", str(CGROUPS)], check=True)
            engine._own_cgroups = True
        (home / "daemon.json").write_text(json.dumps(_settings(home)), encoding="utf-8")
        _ip("link", "add", engine.bridge, "type", "bridge")
        _ip("addr", "add", f"{engine.gateway}/24", "dev", engine.bridge)
        _ip("link", "set", engine.bridge, "up")
        engine._let_through("--insert")
        return engine

    @property
    def socket(self) -> pathlib.Path:
        return self.home / "docker.sock"

    @property
    def host(self) -> str:
        """What DOCKER_HOST is for it."""
        return f"unix://{self.socket}"

    @property
    def bridge(self) -> str:
        return f"fleet{self.number}"

    @property
    def gateway(self) -> str:
        """This host's address, as containers see it."""
        return f"10.{self.number}.0.1"

    @property
    def cgroup(self) -> str:
        return f"fleet-docker-{self.number}"

    def _let_through(self, do: str) -> None:
        """Insert or delete the rule that lets its containers speak with each other."""
        whole = f"10.{self.number}.0.0/16"
        rule = ["FORWARD", "-s", whole, "-d", whole, "-j", "ACCEPT"]
        subprocess.run(
            [_program("iptables", "iptables"), "--wait", "10", do, *rule], check=do == "--insert", capture_output=True
        )

    def start(self) -> Engine:
        """Run it; returns when it answers."""
        assert self.process is None
        containerd = self.home / "containerd"
        if self.containerd is None:  # a service of its own, as Debian has it: it outlives dockerd
            containerd.mkdir(exist_ok=True)
            settings = f'version = 2\nroot = "{containerd}/data"\nstate = "{containerd}/state"\n'
            settings += f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{containerd}/socket"\n'
            (containerd / "config.toml").write_text(settings, encoding="utf-8")
            self.containerd = self._run("containerd", "--config", f"{containerd}/config.toml", "--log-level", "warn")
            self._await(self.containerd, (containerd / "socket").exists)
        arguments = [
            "--containerd", f"{containerd}/socket",
            "--host", self.host, "--data-root", str(self.home / "data"), "--exec-root", str(self.home / "exec"),
            "--pidfile", str(self.home / "dockerd.pid"), "--config-file", str(self.home / "daemon.json"),
            "--bridge", self.bridge, "--default-address-pool", f"base=10.{self.number}.128.0/17,size=24",
            "--iptables=false", "--ip-masq=false", "--ip-forward=false",
            "--cgroup-parent", f"/{self.cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs",
            "--containerd-namespace", self.cgroup, "--containerd-plugins-namespace", f"{self.cgroup}-plugins",
            "--shutdown-timeout", "2", "--log-level", "warn",
        ]  # fmt: skip
        self.process = self._run("dockerd", *arguments, *self.options)
        self._await(self.process, self.answers)
        return self

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        # the death signal follows the thread that forks: only the main thread lives as long as the tests
        preexec = _end_with_parent if threading.current_thread() is threading.main_thread() else None
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [_program(program, "docker.io"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
                preexec_fn=preexec,  # noqa: PLW1509  one call of prctl, and no lock is taken in it
            )

    def answers(self) -> bool:
        """Whether the engine answers a ping."""
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    def _await(self, process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> None:
        until = time.monotonic() + START_S
        while not is_ready():
            if process.poll() is not None or time.monotonic() > until:
                said = (self.home / "log").read_text(errors="replace")[-3000:]
                raise NoDocker(f"{process.args!r} did not start:\n{said}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as a service manager does; its containers end with it (unless `--live-restore`)."""
        self.process = _ended(self.process, signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9` of dockerd alone: what it started lives on."""
        self.process = _ended(self.process, signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """`docker ARGUMENTS` on this engine; `more` is for `subprocess.run`."""
        command = [_program("docker", "docker.io"), "--host", self.host, *arguments]
        return subprocess.run(command, check=False, **{"capture_output": True, "timeout": 120} | more)

    def docker(self, *arguments: str, **more: Any) -> str:
        """The same; its output, or an error that holds what it said."""
        done = self.run(*arguments, **more)
        if done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def found(self, *label: str) -> dict[str, list[str]]:
        """Names of all containers, volumes and networks; with a label, of those that carry it."""
        which = [each for one in label for each in ("--filter", f"label={one}")]
        containers = self.docker("ps", "--all", "--format", "{{.Names}}", *which)
        volumes = self.docker("volume", "ls", "--format", "{{.Name}}", *which)
        networks = self.docker("network", "ls", "--format", "{{.Name}}", "--filter", "type=custom", *which)
        return {
            "containers": containers.split(),
            "volumes": volumes.split(),
            "networks": networks.split(),
        }

    def discard(self) -> None:
        """End it and whatever it started, and remove every trace of it."""
        if self.process is not None and self.answers():
            running = self.docker("ps", "--quiet").split()
            if running:
                self.run("kill", *running)
        self.stop()
        self.containerd = _ended(self.containerd, signal.SIGTERM)
        _end_leftovers(self.home, self.cgroup)
        for where, _ in reversed(_mounts()):
            if where == str(self.home) or where.startswith(f"{self.home}/"):
                subprocess.run(["umount", "--lazy", where], check=False, capture_output=True)
        for name in bridges_of(self.number):
            _ip("link", "delete", name)
        self._let_through("--delete")
        for root in _cgroup_roots():
            _remove_cgroup(root / self.cgroup)
        if self._own_cgroups:
            subprocess.run(["umount", str(CGROUPS)], check=False, capture_output=True)
        shutil.rmtree(self.home)
        if self._range is not None:
            os.unlink(self._range.name)
            self._range.close()


def _ended(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    """Send a signal and wait for the end."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(number)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ip(*arguments: str) -> None:
    subprocess.run([_program("ip", "iproute2"), *arguments], check=True, capture_output=True)


def bridges_of(number: int) -> list[str]:
    """The bridges that have an address of this range."""
    told = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout
    whole = ipaddress.ip_network(f"10.{number}.0.0/16")
    return [
        link["ifname"]
        for link in json.loads(told)
        if any(ipaddress.ip_address(info["local"]) in whole for info in link.get("addr_info", ()))
    ]


def _end_leftovers(home: pathlib.Path, cgroup: str) -> None:
    """Kill what outlived dockerd: containerd, its shims, and processes in containers."""
    until = time.monotonic() + STOP_S
    while pids := {*_named(home), *_in_cgroup(cgroup)}:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > until:
            raise AssertionError(f"processes of the engine in {home} do not end: {sorted(pids)}")
        time.sleep(0.02)


def _named(home: pathlib.Path) -> Iterator[int]:
    """Programs of the engine that were started with its directory in their arguments."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            program = os.path.basename(words[0])
            if program.startswith((b"containerd", b"dockerd", b"docker-proxy")) and any(
                word.startswith(bytes(home) + b"/") for word in words[1:]
            ):
                yield int(folder.name)


def _cgroup_roots() -> list[pathlib.Path]:
    return [pathlib.Path(where) for where, kind in _mounts() if kind in {"cgroup", "cgroup2"}]


def _in_cgroup(name: str) -> Iterator[int]:
    for root in _cgroup_roots():
        for listing in (root / name).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                yield from map(int, listing.read_text(encoding="ascii").split())


def _remove_cgroup(folder: pathlib.Path) -> None:
    below = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    for path in [*below, folder]:
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def running_engine(*, options: Sequence[str] = ()) -> Iterator[Engine]:
    """An engine that a test has for itself, to stop and to break; it is gone after the block."""
    engine = Engine.create(options=options)
    try:
        yield engine.start()
    finally:
        engine.discard()
