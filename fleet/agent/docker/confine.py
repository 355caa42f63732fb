"""A place for helper stages on the machine itself: root's rights over the job's volumes, and nothing else of the host.

A helper stage (git, artifacts, cache) needs root, because the job's image may have written as root, and it acts on what
a job has written and variables that a job has chosen, so it must not have the host in reach. In a mount namespace of
its own it sees a small root: the system's programs read-only, a few files of /etc, the job's volumes at the paths they
have in its containers, and a private /tmp. It has its own process numbers and keeps only the rights over files that a
container has too.

Rule: this runs in a forked child, as root, before anything of the job does; what cannot be done raises OSError, and the
job uses a helper container instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import struct

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_SET_PDEATHSIG = 24, 38, 47, 4, 1
LAST_CAPABILITY = 63
KEPT = (0, 1, 3, 4, 5, 6, 7)  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID
CAPABILITY_VERSION_3 = 0x20080522
SYSTEM_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix")
ETC_FOLDERS = ("ssl", "pki", "ca-certificates", "alternatives", "ld.so.conf.d", "crypto-policies")
ETC_FILES = (
    "resolv.conf", "hosts", "host.conf", "nsswitch.conf", "gai.conf", "passwd", "group", "services", "protocols",
    "ld.so.cache", "ld.so.conf", "gitconfig", "localtime", "os-release", "ssh/ssh_config", "ssh/ssh_known_hosts",
)  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PROC_READ_ONLY = ("sys", "bus", "fs", "irq", "sysrq-trigger")
PROC_HIDDEN = ("kcore", "keys", "timer_list", "sched_debug", "latency_stats", "acpi", "scsi")
SKELETON_OPTIONS = "mode=755,size=16m"


class Place:
    """Where a volume's files are on the host, and at which path its containers see them."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.source = source


class Confinement:
    """The small root of one job."""

    def __init__(self, folder: str, places: list) -> None:
        self._root = os.path.join(folder, "root")
        self._temporary = os.path.join(folder, "tmp")
        self._home = os.path.join(folder, "home")
        self._places = sorted(places, key=lambda place: place.path.count("/"))
        for path in (self._root, self._temporary, self._home):
            os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(self._temporary, 0o1777)  # noqa: S103  as any /tmp, and below a folder of root's

    def enter(self, umask: int = 0) -> None:
        """Become a child that sees the small root alone; the calling process waits for it and ends as it does."""
        _call("unshare", CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID)
        inner = os.fork()
        if inner:
            _end_as(inner)
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._build()
        os.chroot(self._root)
        os.chdir("/")
        _drop_rights()
        os.umask(umask)

    def _build(self) -> None:
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", self._root, "tmpfs", MS_NOSUID | MS_NODEV, SKELETON_OPTIONS)
        for name in SYSTEM_FOLDERS:
            self._show("/" + name)
        self._make_etc()
        self._make_devices()
        for path, source in (("/tmp", self._temporary), ("/root", self._home)):  # noqa: S108  its own, not the host's
            bind(source, self._made(path))
        for name in ("var", "run"):
            os.mkdir(self._inside(name), 0o755)
        os.symlink("/tmp", self._inside("var/tmp"))  # noqa: S108  its own, not the host's
        self._make_proc()
        for place in self._places:
            bind(place.source, self._made_in_volumes(place.path))
            mount(None, self._inside(place.path), None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)

    def _show(self, path: str) -> None:
        """A folder of the system, as it is on the host: read-only, or the link that it is."""
        inside = self._inside(path)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
        elif os.path.isdir(path):
            os.makedirs(inside, exist_ok=True)
            bind(path, inside)
            for below in _mounts_below(inside):
                with contextlib.suppress(OSError):  # one that is hidden by a later one
                    mount(None, below, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV)

    def _make_etc(self) -> None:
        for name in ETC_FOLDERS:
            self._show("/etc/" + name)
        for name in ETC_FILES:
            target = self._inside("etc/" + name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with contextlib.suppress(OSError):
                shutil.copyfile("/etc/" + name, target)

    def _make_devices(self) -> None:
        os.mkdir(self._inside("dev"), 0o755)
        for name in DEVICES:
            os.close(os.open(self._inside("dev/" + name), os.O_CREAT | os.O_WRONLY, 0o666))
            with contextlib.suppress(OSError):
                bind("/dev/" + name, self._inside("dev/" + name))
        for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            os.symlink("/proc/self/" + target, self._inside("dev/" + name))

    def _make_proc(self) -> None:
        """The processes of this place; what could change or read the host through it is shut, as in a container."""
        os.mkdir(self._inside("proc"), 0o555)
        mount("proc", self._inside("proc"), "proc", MS_NOSUID | MS_NODEV)
        for name in PROC_READ_ONLY:
            inside = self._inside("proc/" + name)
            if os.path.exists(inside):
                bind(inside, inside)
                mount(None, inside, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
        os.mkdir(self._inside("empty"), 0o555)
        for name in PROC_HIDDEN:
            inside = self._inside("proc/" + name)
            if os.path.isdir(inside):
                bind(self._inside("empty"), inside)
            elif os.path.exists(inside):
                bind("/dev/null", inside)

    def _inside(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))

    def _made(self, path: str) -> str:
        os.makedirs(self._inside(path), exist_ok=True)
        return self._inside(path)

    def _made_in_volumes(self, path: str) -> str:
        """A folder to mount a volume on; part by part, and never through a link that a job left in another volume."""
        here = self._root
        for part in path.strip("/").split("/"):
            here = os.path.join(here, part)
            if os.path.islink(here):
                raise OSError(0, "%s is a link: a volume cannot be seen below it" % here[len(self._root) :])
            if not os.path.isdir(here):
                os.mkdir(here, 0o777)
        return here


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount, by the system call of this name."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    _call("mount", words[0], words[1], words[2], ctypes.c_ulong(flags), None if options is None else options.encode())


def bind(source: str, target: str) -> None:
    """Show a folder, or a file, at a second place."""
    mount(source, target, None, MS_BIND | MS_REC)


def die_with_parent() -> None:
    """Let the kernel end this process when the one that forked it ends."""
    with contextlib.suppress(OSError):
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _mounts_below(path: str) -> list:
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[1].replace("\\040", " ") for line in file if len(line.split()) > 1]
    return [point for point in points if point == path or point.startswith(path + "/")]


def _drop_rights() -> None:
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in KEPT:
            with contextlib.suppress(OSError):  # a capability that this kernel does not know
                _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    bits = sum(1 << capability for capability in KEPT)
    header = ctypes.create_string_buffer(struct.pack("Ii", CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("6I", bits, bits, 0, 0, 0, 0))
    _call("capset", header, data)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _end_as(inner: int) -> None:
    """Wait for the child, and end in its way; signals to the group reach it directly."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(3, 1024)
    _, status = os.waitpid(inner, 0)
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _call(name: str, *arguments: object) -> int:
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (name, os.strerror(number)))
    return result
