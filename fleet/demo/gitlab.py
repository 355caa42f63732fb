"""A pretend GitLab: the server side of the runner protocol, strict about its client.

For tests, benchmarks and `fleetctl up --demo`. It keeps everything in memory, listens on loopback
only, and writes down every breach of the protocol (`violations`). In the same process use
`PretendGitLab`; as a process of its own

    python -m fleet.demo.gitlab --port 0

prints one line `{"url": ...}` and is driven through `RemoteGitLab(url)`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import signal
import sys
import threading
import time
from typing import Any, Self

from typing_extensions import override

from fleet.demo.api import Application
from fleet.demo.console import Console
from fleet.demo.controls import Controls
from fleet.demo.githost import GitHost
from fleet.demo.jobs import ENDED
from fleet.demo.object_storage import ObjectStorage
from fleet.demo.server import Clerk, HttpServer
from fleet.demo.state import Knobs, State

THREADS = 64
CLERK_EVERY_S = 0.2


class PretendGitLab(Controls):
    """The server in this process; also a context manager."""

    def __init__(
        self,
        *,
        port: int = 0,
        threads: int = THREADS,
        tls: tuple[str, str] | None = None,
        knobs: Knobs | None = None,
    ) -> None:
        """`tls` is the paths of certificate and key; a held poll takes a thread of `threads`."""
        self._state = State(knobs)
        self._git = GitHost(self._opens)
        self._console = Console(self._state, self._git)
        self._server = HttpServer(
            Application(self._state, self._git, self._console.do), port=port, threads=threads, tls=tls
        )
        self._storage = ObjectStorage(self._state)
        self._clerk = Clerk(lambda: self._state.requeue_unacknowledged(time.monotonic()), every_s=CLERK_EVERY_S)

    @property
    def url(self) -> str:
        """Where it listens, once started; without a slash at the end."""
        return self._state.url

    def start(self) -> Self:
        """Listen; returns when calls are answered."""
        self._state.url = self._server.start()
        self._state.storage_url = self._storage.start()
        self._clerk.start()
        return self

    def stop(self) -> None:
        """Answer held polls, close every connection, remove the repositories."""
        self._state.stop()
        self._clerk.stop()
        self._server.stop()
        self._storage.stop()
        self._state.artifacts.close()
        self._git.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @override
    def call(self, verb: str, **arguments: Any) -> Any:
        return self._console.do(verb, arguments)

    def _opens(self, token: str) -> bool:
        with self._state.lock:
            driven = self._state.driven_by(token)
            return driven is not None and not driven[1].superseded and driven[0].state not in ENDED


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; then write what happened to `--state-file`."""
    parser = argparse.ArgumentParser(prog="python -m fleet.demo.gitlab", description="a pretend GitLab")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--state-file", type=pathlib.Path, help="where to write jobs and violations at the end")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    for field in dataclasses.fields(Knobs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = parser.parse_args(arguments)
    knobs = Knobs(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Knobs)})
    tls = (given.tls_cert, given.tls_key) if given.tls_cert else None
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with PretendGitLab(port=given.port, threads=given.threads, tls=tls, knobs=knobs) as gitlab:
        sys.stdout.write(json.dumps({"url": gitlab.url}) + "\n")
        sys.stdout.flush()
        over.wait()
        if given.state_file:
            told = {"url": gitlab.url, "jobs": gitlab.call("jobs"), "violations": gitlab.violations()}
            given.state_file.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
