"""A machine that is a process: `python -m fleet.places.local --dir D --alive-fd N`, its settings on stdin.

It lives in a session of its own and outlives the manager. It owns everything it starts: as child subreaper it adopts
what detaches itself, and at its end (SIGTERM, or nobody heard of for too long) it kills all of it, removes its
directory and exits. Its imports are few, because they are what making a machine costs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from fleet.places.local.children import Children
from fleet.places.local.processes import MARK, descendants, end_all, process
from fleet.places.local.registry import Record, this_boot, write_json
from fleet.places.local.server import Server, Setting

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 30.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    """Be a machine until the end of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True, type=Path)
    parser.add_argument("--alive-fd", required=True, type=int)
    arguments = parser.parse_args()
    # The lock of life is ours alone: a child that kept it would make a dead machine look alive.
    os.set_inheritable(arguments.alive_fd, False)
    spec = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)  # what clients do is no news, and the log file of a machine must not grow by it
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder: Path = arguments.dir
    machine = Machine(Record(folder.parent.parent, folder.name), spec)
    reason = machine.live()
    machine.end(reason)


class Machine:
    """The machine's main loop: accepts connections, reaps, and looks at the clock now and then."""

    def __init__(self, record: Record, spec: dict[str, Any]) -> None:
        self._record = record
        self._timeout_s = float(spec["agent_timeout_s"])
        self._heard_at = time.monotonic()
        self._children = Children()
        self._boot_id = str(uuid.uuid4())
        self._server = Server(_setting(record, spec, self._boot_id), self._children)
        self._wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._told_to_end = False
        os.set_blocking(wake_w, False)
        signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._take_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def live(self) -> str:
        """Serve until told to end, or until nobody has been heard of for too long; the reason is returned."""
        with socket.create_server(("127.0.0.1", 0), backlog=32) as listener:
            self._tell(listener.getsockname()[1])
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            poll.register(self._wake_r, select.POLLIN)
            while not self._told_to_end:
                ready = {fd for fd, _ in poll.poll(min(_LOOK_S, self._timeout_s / 4) * 1000)}
                if self._wake_r in ready:
                    os.read(self._wake_r, 4096)
                self._children.reap()
                if listener.fileno() in ready:
                    self._server.serve(listener.accept()[0])
                if self._is_forgotten():
                    return f"no contact for {self._timeout_s:g} s"
        return "deleted"

    def end(self, reason: str) -> None:
        """Take everything along, and go."""
        me = os.getpid()
        end_all(self._reaped_descendants, within_s=5.0)
        if reason == "deleted":
            self._record.remove()
        else:
            self._record.bury(reason)
        os._exit(0 if not descendants({me}) else 1)

    def _reaped_descendants(self) -> set[int]:
        self._children.reap()
        return descendants({os.getpid()})

    def _tell(self, port: int) -> None:
        """Say where we are, and notice a deletion that was asked for before anybody knew our pid."""
        mine = process(os.getpid())
        assert mine is not None
        write_json(
            self._record.path / "run.json",
            {
                "pid": mine.pid,
                "started": mine.started,
                "port": port,
                "host_key": self._server.host_key,
                "boot": this_boot(),
                "at": time.monotonic(),
            },
        )
        self._told_to_end = self._told_to_end or self._record.deleting_since() is not None

    def _take_term(self, *_: object) -> None:
        self._told_to_end = True

    def _is_forgotten(self) -> bool:
        now = time.monotonic()
        if self._server.has_contact:
            self._heard_at = now
        return now - self._heard_at > self._timeout_s and self._quiet_until() < time.clock_gettime(time.CLOCK_BOOTTIME)

    def _quiet_until(self) -> float:
        """Until when the manager, through the agent, has told the dead-man to stay quiet."""
        try:
            contact = json.loads((self._record.home / ".fleet-agent" / "contact").read_text(encoding="utf-8"))
            return float(contact["until_boottime_s"]) if contact["boot_id"] == self._boot_id else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0


def _setting(record: Record, spec: dict[str, Any], boot_id: str) -> Setting:
    home, keys = str(record.home), record.path / "ssh"
    keys.mkdir(exist_ok=True, mode=0o700)
    # The interpreter we run on comes last, so that a host whose only Python is elsewhere still has one.
    path = f"{_SYSTEM_PATH}:{os.path.dirname(os.path.realpath(sys.executable))}"
    environment = {
        "PATH": path,
        "HOME": home,
        "USER": spec["user"],
        "LOGNAME": spec["user"],
        "SHELL": spec["shell"],
        "LANG": "C.UTF-8",
        "FLEET_BOOT_ID": boot_id,
        # Root has one home on this host, and the agents of all local machines would meet in it.
        "FLEET_NO_SUDO": "1",
        # Nor may they replace this host's own SSH host key.
        "FLEET_SSH_DIR": str(keys),
        MARK: record.machine_id,
    }
    return Setting(
        host_key=spec["host_key"],
        client_public_key=spec["client_public_key"],
        user=spec["user"],
        shell=spec["shell"],
        home=home,
        new_host_key=keys / "ssh_host_ed25519_key",
        environment=environment,
    )
