"""`fleetctl attach`: follow a running job's log, or open a shell beside the job.

Rule: both need the running manager. A manager that goes away while a log is followed is waited for, and the log goes on
where it was; a shell ends with the connection. Leaving never ends the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

import click

from fleet.cli.asking import Manager, running_manager
from fleet.cli.exits import Exit, Misused, Unreachable
from fleet.cli.files import settings_for
from fleet.cli.invocation import command, invocation
from fleet.cli.printing import note
from fleet.runtime.attach_frames import DATA, END, SIZE, BrokenFrame, Unpacker, pack
from fleet.settings.settings import Settings

CHUNK = 64 * 1024
LEAVE = b"\x1d"  # Ctrl-], as in telnet: no program of a shell's needs it
PATIENCE_S, AGAIN_S = 60.0, 1.0


@command("attach")
@click.argument("job")
@click.option("--shell", is_flag=True, help="Open a shell beside the job instead; Ctrl-] leaves it.")
def attach(job: str, shell: bool) -> int:
    """Follow the log of an open job until it has ended.

    A job is named by GitLab's number, our key, or its lease. Ends with 0 when the job succeeded, with 1 when it did
    not. With --shell: a shell on the job's machine, as the job's user, with the job's variables and in its folder; it
    ends with the job. What it shows is not masked.
    """
    settings = settings_for(invocation())
    manager = running_manager(settings)
    if manager is None:
        raise Unreachable(
            f"no manager of {settings.path} answers, and only a running one can attach: start it with fleetctl up"
        )
    return _shell(manager, job) if shell else _follow(settings, manager, job)


def _follow(settings: Settings, manager: Manager, job: str) -> int:
    """Copy the log to standard output, over as many managers as it takes."""
    written = 0
    while True:
        connection = _connected(settings, manager, job, written)
        with connection:
            written, end = _copied(connection, written)
        if end is not None:
            return _told(job, end)
        note("the manager has gone; the job goes on, and so does this when a manager answers again")


def _connected(settings: Settings, manager: Manager, job: str, written: int) -> socket.socket:
    """A connection to whoever is the manager now; one that is away is waited for."""
    until = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(ConnectionError):
            return manager.upgrade(f"/jobs/{job}/log", offset=str(written))
        if time.monotonic() > until:
            raise Unreachable(f"no manager answered for {PATIENCE_S:g} s; the job goes on: attach again later")
        time.sleep(AGAIN_S)
        manager = running_manager(settings, quiet=True) or manager


def _copied(connection: socket.socket, written: int) -> tuple[int, dict[str, Any] | None]:
    """Copy until the end is told, or the connection ends; how much of the log was written by then."""
    out = sys.stdout.buffer
    for kind, payload in _frames(connection):
        if kind == DATA:
            out.write(payload)
            out.flush()
            written += len(payload)
        elif kind == END:
            return written, dict(json.loads(payload))
        else:
            note(payload.decode(errors="replace"))
    return written, None


def _told(job: str, end: dict[str, Any]) -> int:
    if end["state"] == "success":
        return Exit.OK
    if end["state"] != "failed":  # the log itself says how a job failed
        note(f"job {job} is {end['state']}: {end['message']}")
    return Exit.NEGATIVE


def _frames(connection: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    unpacker = Unpacker()
    while True:
        try:
            data = connection.recv(CHUNK)
        except ConnectionError:
            return
        if not data:
            return
        try:
            yield from unpacker.feed(data)
        except BrokenFrame as exc:
            raise Unreachable(str(exc)) from exc


def _shell(manager: Manager, job: str) -> int:
    """Bring this terminal and one beside the job together."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misused("--shell needs a terminal: standard input or output is none")
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    kind = os.environ.get("TERM", "xterm")
    connection = manager.upgrade(f"/jobs/{job}/shell", rows=str(rows), cols=str(columns), term=kind)
    with connection, _raw(sys.stdin.fileno()), _size_changes() as resized:
        note(f"a shell beside job {job}; Ctrl-] leaves it, and the job goes on\r")
        end = _join(connection, resized)
    if end is None:
        note("\nleft; the job goes on")
        return Exit.OK
    note(f"\n{end['message']}")
    return Exit.OK if end["exit_code"] is not None else Exit.NEGATIVE


def _join(connection: socket.socket, resized: int) -> dict[str, Any] | None:
    """Both ways until the shell has ended; None when the person left."""
    typed, shown = sys.stdin.fileno(), sys.stdout.fileno()
    unpacker = Unpacker()
    while True:
        ready = select.select([connection, typed, resized], [], [])[0]
        if resized in ready:
            os.read(resized, 4096)
            columns, rows = os.get_terminal_size(shown)
            connection.sendall(pack(SIZE, json.dumps({"rows": rows, "cols": columns}).encode()))
        if typed in ready:
            data, leave, _ = os.read(typed, 4096).partition(LEAVE)
            connection.sendall(pack(DATA, data))
            if leave:
                return None
        if connection not in ready:
            continue
        data = _received(connection)
        for kind, payload in unpacker.feed(data):
            if kind == DATA:
                _write_all(shown, payload)
            elif kind == END:
                return dict(json.loads(payload))
        if not data:
            return {"exit_code": None, "message": "the manager has gone, and the shell with it; the job goes on"}


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(CHUNK)
    except ConnectionError:
        return b""


def _write_all(number: int, data: bytes) -> None:
    while data:
        data = data[os.write(number, data) :]


@contextlib.contextmanager
def _raw(number: int) -> Iterator[None]:
    """Every key as it is pressed, for the shell at the other end to make sense of."""
    before = termios.tcgetattr(number)
    try:
        tty.setraw(number, termios.TCSADRAIN)  # what was typed already counts
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _size_changes() -> Iterator[int]:
    """A descriptor that can be read when the terminal's size changed."""
    reading, writing = os.pipe()
    for number in (reading, writing):
        os.set_blocking(number, False)
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
    told = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(told)
        signal.signal(signal.SIGWINCH, before)
        os.close(reading)
        os.close(writing)
