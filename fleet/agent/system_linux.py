"""Linux: processes by /proc, their end by pidfd, orphans by a subreaper. See `system` for what each function means.

Rule: a feature that a kernel or a minimal Python lacks is answered with None or an empty list.
"""

from __future__ import annotations

import os

from .home import read_text

try:
    import ctypes
except ImportError:  # a minimal Python has none
    ctypes = None

PR_SET_CHILD_SUBREAPER = 36
PIDFD_OPEN = 434
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def boot_id() -> str:
    """What names this run of the machine."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def start_time(pid: int) -> int:
    """When a process started, in the machine's ticks; 0: there is no such process (a zombie is none)."""
    fields = _stat_fields(pid)
    return 0 if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def _stat_fields(pid: int) -> list | None:
    """Fields from the third on (state, parent, ...): the second is a name that may hold blanks and brackets."""
    text = read_text("/proc/%d/stat" % pid)
    return text[text.rfind(")") + 2 :].split() if text else None


def watch(pid: int) -> int | None:
    """A file descriptor that becomes readable when the process ends; None: ask `is_alive` now and then."""
    opener = getattr(os, "pidfd_open", None)
    try:
        if opener is not None:
            return opener(pid)
        number = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_OPEN, pid, 0) if ctypes else -1
    except (OSError, AttributeError):
        return None
    if number < 0:
        return None
    os.set_inheritable(number, False)
    return number


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent ends."""
    if ctypes is None:
        return False
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def descendants(root: int) -> list:
    """All processes below one, as far as they are not zombies."""
    parents = {}
    for pid in all_processes():
        fields = _stat_fields(pid)
        if fields is not None and fields[0] not in {"Z", "X"}:
            parents.setdefault(int(fields[1]), []).append(pid)
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def session_members(leader: int) -> list:
    """The processes below this one that are in a session, as far as they are not zombies."""
    found = []
    for pid in descendants(os.getpid()):
        fields = _stat_fields(pid)
        if fields is not None and fields[0] not in {"Z", "X"} and int(fields[3]) == leader:
            found.append(pid)
    return found


def has_children(pid: int) -> bool:
    """Whether a process has children; True where the kernel does not say."""
    path = "/proc/%d/task/%d/children" % (pid, pid)
    return bool(read_text(path).strip()) if os.path.exists(path) else True


def all_processes() -> list:
    """The numbers of all processes of the machine."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def processes_with(variable: str, value: str) -> list:
    """Processes whose environment says so, save this one."""
    wanted = ("%s=%s" % (variable, value)).encode()
    found = []
    for pid in all_processes():
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                environment = file.read()
        except OSError:
            continue
        if pid != os.getpid() and wanted in environment.split(b"\0"):
            found.append(pid)
    return found
