"""PostgreSQL for the tests: a private cluster for each test process, and a fresh database for each test.

The binaries are Debian's (or those on PATH). They refuse to run as root, so under root they, and only they, run as an
unprivileged account. Where `FLEET_TEST_POSTGRES` holds the URL of a server on which databases may be created, that
server is used instead, except by tests that stop their server. Nothing is ever skipped: without a server a test fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import sqlalchemy as sa
from psycopg import sql

EXTERNAL = "FLEET_TEST_POSTGRES"
START_S = 60.0
INSTALLED = pathlib.Path("/usr/lib/postgresql")
SETTINGS = {
    "fsync": "off",  # a power cut would lose it; a killed server does not
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "log_min_messages": "warning",
}


class NoPostgres(Exception):
    """The tests of the store need PostgreSQL, and there is none."""


def binaries() -> pathlib.Path:
    """The newest installed server's directory of programs."""
    found = sorted(INSTALLED.glob("*/bin/postgres"), key=lambda path: float(path.parent.parent.name))
    on_path = shutil.which("postgres")
    if found:
        return found[-1].parent
    if on_path:
        return pathlib.Path(on_path).parent
    raise NoPostgres(
        "no PostgreSQL server programs in /usr/lib/postgresql/*/bin nor on PATH; install Debian's `postgresql`, "
        f"or set {EXTERNAL} to the URL of a server where databases may be created"
    )


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom the server runs as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("running as root, and there is neither an account `postgres` nor `nobody` to run the server as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """A test process that is killed takes its server along (Linux; elsewhere the server is left to its owner)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


@dataclasses.dataclass
class Cluster:
    """A server of our own: `start`, `stop`, `pause`, `resume`, and fresh databases while it runs."""

    home: pathlib.Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls) -> Cluster:
        """Make an empty cluster; it does not run yet."""
        home = pathlib.Path(tempfile.mkdtemp(prefix="fleet-pg-", dir="/tmp"))
        cluster = cls(home=home, port=_free_port(), password=secrets.token_urlsafe(12))
        secret = home / "password"
        secret.write_text(cluster.password)
        who = _unprivileged()
        if who is not None:
            for path in (home, secret):
                os.chown(path, who.pw_uid, who.pw_gid)
        done = cluster._run(
            "initdb", "-D", str(home / "data"), "-U", "fleet", "-A", "scram-sha-256", f"--pwfile={secret}",
            "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        code = done.wait()
        if code != 0:
            said = (home / "log").read_text(errors="replace")
            shutil.rmtree(home, ignore_errors=True)
            raise NoPostgres(f"initdb failed with status {code}: {said}")
        return cluster

    def _run(self, program: str, *arguments: str, preexec: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
        who = _unprivileged()
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [str(binaries() / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                start_new_session=True,
                user=None if who is None else who.pw_uid,
                group=None if who is None else who.pw_gid,
                extra_groups=None if who is None else [],
                preexec_fn=preexec,  # noqa: PLW1509  one call of prctl, and no lock is taken in it
            )

    def url(self, database: str) -> str:
        """How to reach one of its databases."""
        return f"postgresql://fleet:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Run the server; returns when it answers."""
        assert self.process is None
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        # the death signal follows the thread that forks: only the main thread lives as long as the tests
        preexec = _end_with_parent if threading.current_thread() is threading.main_thread() else None
        self.process = self._run(
            "postgres", "-D", str(self.home / "data"), "-k", str(self.home), "-p", str(self.port),
            "-h", "127.0.0.1", *settings, preexec=preexec,
        )  # fmt: skip
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as exc:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.home / "log").read_text(errors="replace")[-2000:]
                    self.stop(immediate=True)
                    raise NoPostgres(f"the private PostgreSQL server did not start: {exc}\n{said}") from exc
                time.sleep(0.02)

    def stop(self, *, immediate: bool = False) -> None:
        """End the server: sessions are cut off in either case; `immediate` is a crash."""
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pause(self) -> None:
        """The server and its sessions stand still: connections stay open and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self.process is not None
        parent = self.process.pid
        os.kill(parent, number)
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                    os.kill(int(stat.parent.name), number)

    def discard(self) -> None:
        """End it and remove every trace of it."""
        self.stop(immediate=True)
        shutil.rmtree(self.home)


@dataclasses.dataclass(frozen=True)
class Databases:
    """Makes databases on a server, `admin` being the URL of one that exists; a template makes them quick."""

    admin: str
    prefix: str = dataclasses.field(default_factory=lambda: f"fleet_test_{secrets.token_hex(6)}")

    def run(self, statement: str, *names: str) -> None:
        """Run one statement with names in it, outside any transaction."""
        with psycopg.connect(self.admin, autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def url_of(self, name: str) -> str:
        """The URL of a database of this server."""
        return sa.make_url(self.admin).set(database=name).render_as_string(hide_password=False)

    def make(self, *, template: str = "template0") -> str:
        """Make a database; its name."""
        name = f"{self.prefix}_{secrets.token_hex(4)}"
        self.run("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A private server that runs inside the block and is gone after it."""
    cluster = Cluster.create()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.discard()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a server to make databases on: the one from the environment, else a private one."""
    given = os.environ.get(EXTERNAL)
    if given:
        yield given
        return
    with running_cluster() as cluster:
        yield cluster.url("postgres")
