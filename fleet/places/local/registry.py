"""What is known of local machines: one directory each, written so that any process may be killed at any point.

    <root>/lock                    held by whoever makes or removes
    <root>/tokens/<hash>/          one per create token: request.json, and <machine>.gone for each machine removed
    <root>/machines/<machine>/     meta.json  what was asked for; there before the machine's process
                                   alive      locked (flock) by the machine's process for its whole life
                                   run.json   pid, start time, port, host key; written by the machine when it listens
                                   ended.json why it is no more
                                   deleting   since when its end is asked for
                                   home/      the home directory of the machine

The lock on `alive` is taken before the process is started and inherited by it: there is no moment at which a machine
lives and looks dead, and a pid used again by another program is never taken for a machine. Instants are monotonic
seconds since boot, so that no step of the wall clock matters; a machine never outlives a boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet.places.local.processes import end_all, marked, process

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def machine_ids(root: Path, token: str, count: int) -> tuple[str, ...]:
    """The ids of the machines of a token: always the same ones."""
    name = hashlib.sha256(f"{root}\0{token}".encode()).hexdigest()[:12]
    return tuple(f"local-{name}-{index}" for index in range(count))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file as a whole, durably."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """A file's content, None when it is not there."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content


def this_boot() -> str:
    """The identity of this boot of this host."""
    return BOOT_ID.read_text(encoding="ascii").strip()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Alone in making and removing, among all threads and processes."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(root / "lock", "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Record:
    """The directory of one machine."""

    __slots__ = ("machine_id", "path", "root")

    def __init__(self, root: Path, machine_id: str) -> None:
        self.root = root
        self.machine_id = machine_id
        self.path = root / "machines" / machine_id

    @property
    def home(self) -> Path:
        return self.path / "home"

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    def meta(self) -> dict[str, Any] | None:
        return read_json(self.path / "meta.json")

    def run(self) -> dict[str, Any] | None:
        return read_json(self.path / "run.json")

    def ended(self) -> dict[str, Any] | None:
        return read_json(self.path / "ended.json")

    def make(self, meta: dict[str, Any]) -> None:
        """The directory with its intent appears as a whole."""
        new = self.path.with_name(f".new-{self.machine_id}")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        write_json(new / "meta.json", meta)
        (new / "home").mkdir(mode=0o700)
        os.rename(new, self.path)

    def hold(self) -> int:
        """Take the lock of life; the descriptor is to be inherited by the machine's process."""
        fd = os.open(self.path / "alive", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def is_alive(self) -> bool:
        """Whether the machine's process lives, or is just being started."""
        try:
            fd = os.open(self.path / "alive", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def pid(self) -> int | None:
        """The pid of the living machine; None while it has not told one or when it is no more."""
        run = self.run()
        if run is None or not self.is_alive():
            return None
        found = process(run["pid"])
        return run["pid"] if found is not None and found.started == run["started"] else None

    def deleting_since(self) -> float | None:
        marker = read_json(self.path / "deleting")
        return None if marker is None else float(marker["at"])

    def mark_deleting(self) -> None:
        if self.deleting_since() is None:
            write_json(self.path / "deleting", {"at": time.monotonic()})

    def bury(self, reason: str) -> None:
        """The machine's process is no more: end what it left running, remove its home, and keep the reason."""
        end_all(lambda: marked(self.machine_id, str(self.path)), within_s=5.0)
        remove_tree(self.home)
        if self.ended() is None:
            write_json(self.path / "ended.json", {"at": time.monotonic(), "boot": this_boot(), "reason": reason})

    def remove(self) -> None:
        """The directory disappears at once, then its content; its token remembers that the machine was."""
        meta = self.meta()
        if meta is not None:
            gone = token_folder(self.root, meta["token"]) / f"{self.machine_id}.gone"
            if gone.parent.is_dir():
                gone.touch()
        going = self.path.with_name(f".gone-{self.machine_id}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, going)
        remove_tree(going)


def records(root: Path) -> list[Record]:
    """All machines of the registry, in the order of their names."""
    try:
        names = sorted(os.listdir(root / "machines"))
    except FileNotFoundError:
        return []
    return [Record(root, name) for name in names if not name.startswith(".")]


def token_folder(root: Path, token: str) -> Path:
    """Where a create token is remembered."""
    return root / "tokens" / hashlib.sha256(token.encode()).hexdigest()[:32]


def is_gone(root: Path, token: str, machine_id: str) -> bool:
    """Whether the token's machine was made and has been removed since."""
    return (token_folder(root, token) / f"{machine_id}.gone").exists()


def sweep(root: Path, *, keep_tokens_s: float) -> None:
    """Remove what a crash left half made or half removed, and tokens nobody can ask about any more. Needs the lock."""
    for folder in (root / "machines").glob(".*"):
        remove_tree(folder)
    boot, now = this_boot(), time.monotonic()
    living = {record.machine_id for record in records(root)}
    for folder in (root / "tokens").glob("*"):
        request = read_json(folder / "request.json")
        is_old = request is None or request["boot"] != boot or now - request["at"] > keep_tokens_s
        if is_old and not (request and living & set(request["machines"])):
            remove_tree(folder)


def remove_tree(path: Path) -> None:
    """Remove a directory, also what a job made read-only in it; what is absent is removed."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    _open_up(path)
    shutil.rmtree(path, ignore_errors=True)


def _open_up(path: Path) -> None:
    """Make every folder writable, each before it is read."""
    with contextlib.suppress(OSError):
        path.chmod(0o700)
    for folder, below, _ in os.walk(path):
        # Not through links: what they lead to is not ours.
        for each in (Path(folder, name) for name in below if not os.path.islink(os.path.join(folder, name))):
            with contextlib.suppress(OSError):
                each.chmod(0o700)
