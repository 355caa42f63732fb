"""`fleetctl attach`, the manager's end: a job's log as it grows, or a shell beside the job, over an upgraded call.

Rule: a log is read from the spool by a descriptor of its own, so that the end of a job that GitLab has accepted
already is still read; a shell is a terminal like those that GitLab opens, but no job waits for it. Each attachment has
a thread, and there are MOST at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from werkzeug.wrappers import Request, Response

from fleet.execution.terminals import Terminal
from fleet.model.job import Job
from fleet.model.lifecycle import JobState
from fleet.runtime.attach_frames import DATA, END, NOTE, PROTOCOL, SIZE, BrokenFrame, Unpacker, pack
from fleet.runtime.lists import BadQuery
from fleet.runtime.orders import NotFound, OrderRefused
from fleet.sdk import FleetError
from fleet.store import jobs, stories
from fleet.store.engine import StoreError

if TYPE_CHECKING:
    from fleet.runtime.app import Manager

log = structlog.get_logger(__name__)
MOST = 32
LOOK_S = 0.25
CHUNK = 64 * 1024
HAND_OVER = "fleet.hand_over"  # in the environment of a call: gives its connection away
HANDED_OVER = "fleet.handed_over"
ENDED = frozenset({JobState.FINISHED, JobState.ABANDONED})


class UpgradeNeeded(FleetError):
    """The call carries a stream: it is to be upgraded."""

    slug = "upgrade_needed"


class Attaching:
    """The attachments of one manager."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._room = threading.BoundedSemaphore(MOST)

    def log(self, request: Request, name: str) -> Response:
        """Upgrade the call: the log of an open job, from `offset` on, until the job has ended."""
        offset = _number(request, "offset", 0)
        key = self._called(request, name)
        return self._begin(request, lambda connection, _: self._send_log(key, offset, connection), key, "log")

    def shell(self, request: Request, name: str) -> Response:
        """Upgrade the call: a shell beside a running job, on a terminal of `rows` and `cols`."""
        rows, cols = _number(request, "rows", 24), _number(request, "cols", 80)
        key = self._called(request, name)
        terminals = self._manager.executor.terminals
        terminal = terminals.open(key, rows=rows, cols=cols, hold_s=0, term=request.args.get("term", "xterm"))
        try:
            return self._begin(
                request,
                lambda connection, unpacker: self._join(terminal, connection, unpacker),
                key,
                "shell",
                lambda: terminals.close(terminal),
            )
        except BaseException:
            terminals.close(terminal)
            raise

    def _called(self, request: Request, name: str) -> str:
        """The job of that name, which runs here."""
        if request.headers.get("Upgrade", "").lower() != PROTOCOL or HAND_OVER not in request.environ:
            raise UpgradeNeeded(f"this call is to be upgraded to {PROTOCOL}; fleetctl attach does so")
        found = self._manager.store.read(lambda tx: stories.jobs_called(tx, name))
        if not found:
            raise NotFound(
                f"no open job is called {name}: fleetctl jobs lists them; GitLab has the log of an ended one"
            )
        mine = [each for each in found if each.owner == self._manager.me]
        if not mine:
            raise OrderRefused(f"job {name} is run by manager {found[0].owner}: attach there")
        if len(mine) > 1:
            keys = ", ".join(each.job_key for each in mine)
            raise OrderRefused(f"{len(mine)} jobs have the number {name}, of several GitLabs: name one of {keys}")
        return mine[0].job_key

    def _begin(
        self,
        request: Request,
        serve: Callable[[socket.socket, Unpacker], None],
        key: str,
        what: str,
        done: Callable[[], None] = lambda: None,
    ) -> Response:
        if not self._room.acquire(blocking=False):
            raise OrderRefused(f"{MOST} are attached already: end one of them")
        connection: socket.socket = request.environ[HAND_OVER]()
        request.environ[HANDED_OVER] = True

        def run() -> None:
            try:
                with connection, contextlib.suppress(OSError, BrokenFrame, StoreError):
                    connection.settimeout(None)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    connection.sendall(_switched())
                    serve(connection, _greeted(connection))
            finally:
                done()
                self._room.release()
                log.info("detached", job_key=key, what=what)

        threading.Thread(target=run, name=f"attach-{what}", daemon=True).start()
        log.info("attached", job_key=key, what=what)
        return Response(status=200)  # never sent: the connection is ours

    def _send_log(self, key: str, offset: int, connection: socket.socket) -> None:
        reader = _Reader(self._manager.spool.path(key), offset)
        told: JobState | None = None
        try:
            while True:
                job = self._manager.store.read(lambda tx: jobs.job(tx, key))
                if job is not None and job.state is not told and job.state in (JobState.WAITING, JobState.STARTING):
                    connection.sendall(pack(NOTE, f"job {job.gitlab_job_id} is {job.state}".encode()))
                told = None if job is None else job.state
                for piece in reader.pieces():
                    connection.sendall(piece)
                end = _end_of(job, self._manager.me, reader.at)
                if end is not None:
                    connection.sendall(pack(END, json.dumps(end).encode()))
                    return
                if select.select([connection], [], [], LOOK_S)[0] and not connection.recv(CHUNK):
                    return
        finally:
            reader.close()

    def _join(self, terminal: Terminal, connection: socket.socket, unpacker: Unpacker) -> None:
        showing = threading.Thread(target=_show, args=(terminal, connection), name="attach-show", daemon=True)
        showing.start()
        try:
            while data := connection.recv(CHUNK):
                for kind, payload in unpacker.feed(data):
                    _typed(terminal, kind, payload)
        finally:
            self._manager.executor.terminals.close(terminal)
            showing.join()


class _Reader:
    """Reads a trace from its spool file, also when that is removed meanwhile, or begun anew."""

    def __init__(self, path: os.PathLike[str], offset: int) -> None:
        self._path = path
        self._fd: int | None = None
        self.at = offset

    def pieces(self) -> Any:
        """Frames with what there is more of it."""
        if self._is_another():
            self.close()
            if self.at:
                yield pack(NOTE, b"the job begins anew on another machine")
            self.at = 0
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            if self.at > os.fstat(self._fd).st_size:
                self.at = 0
        while data := os.pread(self._fd, CHUNK, self.at):
            self.at += len(data)
            yield pack(DATA, data)

    def _is_another(self) -> bool:
        """Whether the file under this name is not the one that is read."""
        if self._fd is None:
            return False
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return there.st_ino != os.fstat(self._fd).st_ino

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None


def _end_of(job: Job | None, me: str, sent: int) -> dict[str, Any] | None:
    """What is said at the end; None while there is more to come."""
    if job is None:
        return {"state": "gone", "message": "the job is not known any more"}
    if job.owner != me:
        return {"state": "gone", "message": f"manager {job.owner} goes on with the job: attach there"}
    whole = None if job.log_bytes is None else len(job.prologue or b"") + job.log_bytes + len(job.epilogue or b"")
    if job.state not in ENDED and (job.outcome is None or whole is None or sent < whole):
        return None
    if job.outcome is None:
        return {"state": str(job.state), "message": job.stop_reason or "GitLab took the job away"}
    return {
        "state": job.outcome.state,
        "failure_reason": job.outcome.failure_reason,
        "exit_code": job.outcome.exit_code,
        "message": job.outcome.message,
    }


def _greeted(connection: socket.socket) -> Unpacker:
    """Wait for the caller's first frame: what came sooner could be taken for a part of the answer over there."""
    unpacker = Unpacker()
    while data := connection.recv(1):
        if list(unpacker.feed(data)):
            return unpacker
    raise BrokenFrame("the caller went away")


def _show(terminal: Terminal, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while (data := terminal.read()) is not None:
            connection.sendall(pack(DATA, data))
        said = {"state": "ended", "exit_code": terminal.exit_code, "message": terminal.reason}
        connection.sendall(pack(END, json.dumps(said).encode()))
        connection.shutdown(socket.SHUT_RDWR)


def _typed(terminal: Terminal, kind: bytes, payload: bytes) -> None:
    if kind == DATA:
        terminal.write(payload)
    elif kind == SIZE:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            size = json.loads(payload)
            terminal.resize(int(size["rows"]), int(size["cols"]))


def _switched() -> bytes:
    return f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {PROTOCOL}\r\nConnection: Upgrade\r\n\r\n".encode("ascii")


def _number(request: Request, name: str, usual: int) -> int:
    text = request.args.get(name, str(usual))
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise BadQuery(f"{name}={text} is no number")
    return int(text)
