"""What differs between operating systems: processes, detaching, nameless files, kinds of waiting. Linux now.

Rule: nothing here knows of jobs or frames, and nothing elsewhere asks which system it runs on. A feature that a machine
lacks (no /proc, no ctypes, an old kernel) is answered with None or an empty list, and the caller has another way.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import sys
import time

try:
    import ctypes
except ImportError:  # a minimal Python has none
    ctypes = None

PR_SET_CHILD_SUBREAPER = 36
PIDFD_OPEN = 434
F_SETPIPE_SZ = 1031
PIPE_BYTES = 256 * 1024
FIONREAD = 0x541B
MEMORY_FILE_FLAGS = 1  # close on exec
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def boot_id() -> str:
    """What names this run of the machine; FLEET_BOOT_ID where a machine is a process."""
    named = os.environ.get("FLEET_BOOT_ID")
    return named or read_text("/proc/sys/kernel/random/boot_id").strip() or "unknown"


def read_text(path: str) -> str:
    """The text of a small file, or nothing."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def start_time(pid: int) -> int:
    """When a process started, in the machine's ticks; 0: there is no such process (a zombie is none)."""
    fields = _stat_fields(pid)
    return 0 if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs, and not another that got its number."""
    return pid > 0 and started > 0 and start_time(pid) == started


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


def detach(run, keep: tuple) -> None:
    """Run a function in a process of its own that outlives this one, its session and its terminal.

    Two forks: the first leaves the session, the second can never get a terminal back and is nobody's child. Only the
    descriptors in `keep` stay open. The code that runs is the code in memory: files may be replaced meanwhile.
    """
    gc.freeze()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        gc.unfreeze()
        return
    status = 1
    try:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.chdir("/")
            _close_all_but(keep)
            run()
        status = 0
    finally:
        os._exit(status)


def _close_all_but(keep: tuple) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for number in open_descriptors():
        if number > 2 and number not in keep:
            try:
                os.close(number)
            except OSError:
                continue


def open_descriptors() -> list:
    """The numbers of this process's open files."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return list(range(256))


def nameless_file(data: bytes, folder: str) -> int:
    """An open file in memory with this content and no name; on disk, unlinked, where memory files are not allowed."""
    try:
        number = os.memfd_create("script", MEMORY_FILE_FLAGS)
    except (OSError, AttributeError):
        path = os.path.join(folder, ".script.%d" % os.getpid())
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.lseek(number, 0, os.SEEK_SET)
    return number


def big_pipe() -> tuple:
    """A pipe with room for a burst; its reading end does not block."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with contextlib.suppress(OSError):  # the user's share of pipe memory may be used up; the usual size does
        fcntl.fcntl(writing, F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing


def waiting_bytes(number: int) -> int:
    """How many bytes can be read from a pipe right now."""
    return int.from_bytes(fcntl.ioctl(number, FIONREAD, b"\0\0\0\0"), sys.byteorder)


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


def send(pid: int, number: int) -> None:
    """Signal a process; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def send_group(group: int, number: int) -> None:
    """Signal a process group; before the child has made the group, the child itself."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        send(group, number)
    except PermissionError:
        pass


def be_humble() -> None:
    """Let every other process go first; the disk's scheduler goes by the same number."""
    with contextlib.suppress(OSError):
        os.nice(15)


def seconds_since_boot() -> float:
    """Seconds since the machine started, sleep included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def wall_s() -> float:
    """The time of day, in seconds since 1970."""
    return time.time()


def load() -> float:
    """The machine's load of the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def free_bytes(path: str) -> int:
    """Free room for this user on the disk that holds a path."""
    try:
        room = os.statvfs(path)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize


def find_program(name: str, path: str) -> str | None:
    """Where a program is, by a search path."""
    if "/" in name:
        return name if os.access(name, os.X_OK) else None
    for folder in path.split(":"):
        program = os.path.join(folder or ".", name)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    return None
