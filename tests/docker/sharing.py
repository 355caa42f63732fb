"""One engine for all processes of a test run: the first that needs it starts it, and it ends after the last.

Each user holds a shared lock on a file; the keeper (`tests.docker.keeper`) waits for that file to be free.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from tests.docker.engine import START_S, STOP_S, Engine, NoDocker

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_name() -> str:
    """The same in all workers of a test run."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))[:16]


@contextlib.contextmanager
def shared_engine() -> Iterator[Engine]:
    """The engine of this test run; it runs inside the block."""
    home = pathlib.Path(tempfile.gettempdir()) / f"fleet-docker-{run_name()}"
    users = home.with_suffix(".users")
    with _joined(users) as lock:
        yield _engine(home, users)
        fcntl.flock(lock, fcntl.LOCK_UN)
        is_last = _is_free(lock)
    until = time.monotonic() + STOP_S
    while is_last and home.exists() and time.monotonic() < until:
        time.sleep(0.05)


@contextlib.contextmanager
def _joined(users: pathlib.Path) -> Iterator[IO[bytes]]:
    """Hold the lock of the users; a file that the last keeper has removed meanwhile does not count."""
    while True:
        with users.open("ab+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if users.exists() and users.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                yield lock
                return


def _is_free(lock: IO[bytes]) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _engine(home: pathlib.Path, users: pathlib.Path) -> Engine:
    ready = home / "ready.json"
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:  # another process has begun with it
        pass
    else:
        with (home / "keeper.log").open("ab") as log:
            subprocess.run(  # nobody's child: it ends when it is not needed, which may be after this process
                ["setsid", "--fork", sys.executable, "-m", "tests.docker.keeper", str(home), str(users)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )
    until = time.monotonic() + START_S + 10
    while not ready.exists():
        if time.monotonic() > until:
            raise NoDocker(f"the keeper of the engine said nothing: {_said(home)}")
        time.sleep(0.05)
    told = json.loads(ready.read_text(encoding="utf-8"))
    if "error" in told:
        raise NoDocker(told["error"])
    return Engine(home=home, number=told["number"])


def _said(home: pathlib.Path) -> str:
    with contextlib.suppress(OSError):
        return (home / "keeper.log").read_text(errors="replace")[-2000:]
    return "nothing"
