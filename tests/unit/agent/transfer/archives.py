"""Archives in memory: written from a tree, and unpacked into another."""

from __future__ import annotations

import io
import os
import pathlib

from fleet.agent.transfer import archive
from fleet.agent.transfer.extract import extract
from fleet.agent.transfer.picking import pick
from fleet.agent.transfer.tree import LocalTree

SINK_LIMIT = 256 * 1024 * 4


class Sink:
    """Keeps what it is given, and knows the longest piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        assert data
        assert len(data) <= SINK_LIMIT
        self.pieces.append(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def packed(root: pathlib.Path, form: str = "zip", level: str = "default", paths: tuple[str, ...] = (".",)) -> bytes:
    """The archive of some paths of a directory."""
    tree = LocalTree(str(root))
    try:
        sink = Sink()
        archive.write(form, tree.read(pick(tree, list(paths), [], untracked=False)), sink, level)
        return sink.data
    finally:
        tree.close()


def unpacked(data: bytes, root: pathlib.Path, **options: object) -> int:
    """Unpack into a directory; how many entries were made."""
    root.mkdir(exist_ok=True)
    return extract(io.BytesIO(data), LocalTree(str(root)), **options)


def listing(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind, mode, content or target, time."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        name = os.fsdecode(os.fsencode(path.relative_to(root)))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder", about.st_mode & 0o777, int(about.st_mtime))
        else:
            found[name] = ("file", about.st_mode & 0o777, int(about.st_mtime), path.read_bytes())
    return found
