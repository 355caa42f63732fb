"""What the agent tells about its machine.

Rule: quick. Programs are asked for their version at the same time and with a short limit; everything else is a look.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time

from . import PROTOCOL, VERSION, identity, leases, room, system
from .home import Home
from .shells import SHELLS

VERSION_WITHIN_S = 2.0
VERSION_NUMBER = re.compile(rb"\d+\.\d+(?:\.\d+)*")


def hello(home: Home) -> dict:
    """The first frame."""
    who = identity.own()
    path = who.environment()["PATH"]
    versions = versions_of({"git": ["git", "--version"], "git_lfs": ["git-lfs", "--version"]}, path)
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "version": VERSION,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "pid": os.getpid(),
        "uid": who.uid,
        "user": who.name,
        "home": who.home,
        "root": who.uid == 0,
        "boot_id": system.boot_id(),
        "hostname": os.uname().nodename,
        "arch": os.uname().machine,
        "git": versions["git"],
        "git_lfs": versions["git_lfs"],
        "shells": [shell for shell in SHELLS if system.find_program(shell, path)],
        "docker": has_docker(path),
        "leases": known(home),
        **pulse(home),
    }


def pulse(home: Home) -> dict:
    """What changes from minute to minute."""
    return {"free_bytes": system.free_bytes(home.root), "load": system.load(), "disks": room.disks(home)}


def known(home: Home) -> list:
    """Every lease that has not been cleaned."""
    found = []
    for lease in leases.all_leases(home):
        view = lease.view()
        if view.state not in {"unknown", "cleaned"}:
            found.append({"lease": lease.name, "state": view.state, "epoch": view.epoch, "log_bytes": view.log_bytes})
    return found


def has_docker(path: str) -> bool:
    """Whether there is a Docker client and a daemon's socket."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    is_there = not address.startswith("unix://") or os.path.exists(address[len("unix://") :])
    return is_there and system.find_program("docker", path) is not None


def versions_of(commands: dict, path: str) -> dict:
    """The version each program tells; None where there is none, or none in time."""
    asked = {}
    for name, arguments in commands.items():
        program = system.find_program(arguments[0], path)
        if program is not None:
            asked[name] = _ask(program, arguments, path)
    give_up_at = time.monotonic() + VERSION_WITHIN_S
    return {name: _answer(*asked[name], give_up_at) if name in asked else None for name in commands}


def _ask(program: str, arguments: list, path: str) -> tuple:
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        moves = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        pid = os.posix_spawn(program, arguments, {"PATH": path, "LC_ALL": "C", "HOME": "/"}, file_actions=moves)
    finally:
        os.close(writing)
        os.close(null)
    return pid, reading


def _answer(pid: int, reading: int, give_up_at: float) -> str | None:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    if poll.poll(max(0.0, give_up_at - time.monotonic()) * 1000):
        text = os.read(reading, 4096)
    else:
        text = b""
        system.send(pid, signal.SIGKILL)
    os.close(reading)
    os.waitpid(pid, 0)
    found = VERSION_NUMBER.search(text)
    return found.group().decode() if found else None
