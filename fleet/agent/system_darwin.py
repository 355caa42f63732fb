"""macOS: processes by `ps`, the boot by `sysctl`. See `system` for what each function means.

Rule: `ps` and `sysctl` are asked, because what they print has not changed for decades and needs no structure of the
kernel's. There is no subreaper: a daemon that leaves its parent is found by the lease in its environment, when the
machine is cleaned after the job. There is no descriptor for a process's end that is more than a convenience.
"""

from __future__ import annotations

import calendar
import os
import subprocess
import time

STANDARD_PATH = "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin"
PS = ("ps", "-axo", "pid=,ppid=,stat=,lstart=")
PS_WITH_ENVIRONMENT = ("ps", "-axEww", "-o", "pid=,command=")
BOOT = ("sysctl", "-n", "kern.bootsessionuuid")
WITHIN_S = 10.0
STARTED = "%a %b %d %H:%M:%S %Y"


class Process:
    """One line of `ps`."""

    def __init__(self, pid: int, parent: int, started: int, *, is_zombie: bool) -> None:
        self.pid = pid
        self.parent = parent
        self.started = started
        self.is_zombie = is_zombie


def ask(words: tuple) -> str:
    """What a program of the system prints, in plain English and universal time; nothing when it fails."""
    environment = {"PATH": STANDARD_PATH, "LC_ALL": "C", "TZ": "UTC"}
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def processes_of(text: str) -> list:
    """The processes that `ps` printed: number, parent, state, and five words for the start."""
    found = []
    for line in text.splitlines():
        words = line.split()
        try:
            started = calendar.timegm(time.strptime(" ".join(words[3:8]), STARTED))
            found.append(Process(int(words[0]), int(words[1]), started, is_zombie=words[2].startswith("Z")))
        except (ValueError, IndexError):
            continue
    return found


def below(found: list, root: int) -> list:
    """All processes below one, as far as they are not zombies."""
    children = {}
    for process in found:
        if not process.is_zombie:
            children.setdefault(process.parent, []).append(process.pid)
    below_root, queue = [], [root]
    while queue:
        mine = children.pop(queue.pop(), [])
        below_root += mine
        queue += mine
    return below_root


def carrying(text: str, variable: str, value: str) -> list:
    """The processes whose environment `ps` printed after their command; a word of a command may look the same."""
    wanted = "%s=%s" % (variable, value)
    lines = [line.split() for line in text.splitlines()]
    return [int(words[0]) for words in lines if words and words[0].isdigit() and wanted in words[1:]]


def boot_id() -> str:
    """What names this run of the machine."""
    return ask(BOOT).strip()


def start_time(pid: int) -> int:
    """When a process started, in seconds since 1970; 0: there is no such process (a zombie is none)."""
    found = [process for process in processes_of(ask((*PS[:1], "-p", "%d" % pid, "-o", PS[2]))) if process.pid == pid]
    return found[0].started if found and not found[0].is_zombie else 0


def watch(pid: int) -> int | None:  # noqa: ARG001  one shape
    """None: the caller asks now and then."""
    return None


def adopt_orphans() -> bool:
    """False: no process can have others' orphans here."""
    return False


def all_processes() -> list:
    """The numbers of all processes of the machine."""
    return [process.pid for process in processes_of(ask(PS))]


def descendants(root: int) -> list:
    """All processes below one, as far as they are not zombies; the `ps` that told is none of them."""
    alive = []
    for pid in below(processes_of(ask(PS)), root):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        alive.append(pid)
    return alive


def session_members(leader: int) -> list:
    """The processes below this one that are in a session, as far as they are not zombies."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except OSError:
            continue
    return found


def has_children(pid: int) -> bool:
    """Whether a process has children."""
    return bool(descendants(pid))


def processes_with(variable: str, value: str) -> list:
    """Processes whose environment says so, save this one."""
    return [pid for pid in carrying(ask(PS_WITH_ENVIRONMENT), variable, value) if pid != os.getpid()]
