"""What differs between operating systems: processes, detaching, nameless files, kinds of waiting.

Rule: nothing here knows of jobs or frames, and nothing elsewhere asks which system it runs on. What is alike on all
systems stands here; what is not, in one small file per system with the same functions (`OWN`). A feature that a machine
lacks (no /proc, no ctypes, an old kernel) is answered with None or an empty list, and the caller has another way.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import sys
import termios
import time

from .home import read_text  # noqa: F401  others take it from this doorway

if sys.platform == "darwin":
    from . import system_darwin as own
else:
    from . import system_linux as own

F_SETPIPE_SZ = 1031
PIPE_BYTES = 256 * 1024
MEMORY_FILE_FLAGS = 1  # close on exec

OWN = (
    "STANDARD_PATH", "adopt_orphans", "all_processes", "boot_id", "descendants", "has_children", "processes_with",
    "session_members", "start_time", "watch",
)  # fmt: skip
STANDARD_PATH = own.STANDARD_PATH
adopt_orphans = own.adopt_orphans  # become the parent of every descendant whose parent ends; False: that cannot be
all_processes = own.all_processes  # the numbers of all processes
descendants = own.descendants  # all processes below one, as far as they are not zombies
has_children = own.has_children  # whether a process has children; True where nobody can tell quickly
processes_with = own.processes_with  # those whose environment has a variable, save this one
session_members = own.session_members  # the processes below this one that are in a session
start_time = own.start_time  # when a process started, in a number of the system's; 0: none, or a zombie
watch = own.watch  # a descriptor that becomes readable at a process's end; None: ask `is_alive` now and then


def boot_id() -> str:
    """What names this run of the machine; FLEET_BOOT_ID where a machine is a process."""
    return os.environ.get("FLEET_BOOT_ID") or own.boot_id() or "unknown"


def is_alive(pid: int, started: int) -> bool:
    """Whether this very process still runs, and not another that got its number."""
    return pid > 0 and started > 0 and start_time(pid) == started


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
    return int.from_bytes(fcntl.ioctl(number, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)


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
