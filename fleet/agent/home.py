"""The agent's folder on the machine, and the three ways of writing in it: atomically, durably, both.

Rule: the folder belongs to the agent's user and nobody else may look into it. Losing power or being killed between two
calls leaves either the old or the new content, never a part.
"""

from __future__ import annotations

import contextlib
import json
import os

FOLDERS = ("agents", "jobs", "tombstones", "serve", "uses")


class Home:
    """`$HOME/.fleet-agent`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.jobs = os.path.join(root, "jobs")
        self.tombstones = os.path.join(root, "tombstones")
        self.serve = os.path.join(root, "serve")
        self.contact = os.path.join(root, "contact")
        self.uses = os.path.join(root, "uses")
        self.disks = os.path.join(root, "disks.json")

    def make(self) -> None:
        """Make the folders; only the agent's user may enter."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        os.chmod(self.root, 0o700)
        for name in FOLDERS:
            os.makedirs(os.path.join(self.root, name), mode=0o700, exist_ok=True)


def of_user(home: str) -> Home:
    """The agent's folder in a user's home."""
    return Home(os.path.join(home, ".fleet-agent"))


def write(path: str, data: bytes, *, durable: bool = False) -> None:
    """Replace a file; when durable, it survives a loss of power from here on."""
    temporary = "%s.%d~" % (path, os.getpid())
    try:
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(number, view) :]
            if durable:
                os.fsync(number)
        finally:
            os.close(number)
        os.replace(temporary, path)
    except OSError:
        discard(temporary)
        raise
    if durable:
        settle(os.path.dirname(path))


def write_json(path: str, value: dict, *, durable: bool = False) -> None:
    """Replace a file by a JSON object."""
    write(path, json.dumps(value, separators=(",", ":")).encode(), durable=durable)


def read_json(path: str) -> dict:
    """The JSON object in a file; empty when there is none, or none yet."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_text(path: str) -> str:
    """The text of a small file, or nothing."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def settle(folder: str) -> None:
    """Make the names in a folder durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def discard(path: str) -> None:
    """Remove a file; one that is absent is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
