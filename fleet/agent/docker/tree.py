"""The project directory of a job whose volumes this machine cannot touch: a copy here, through a helper container.

Rule: the engine brings the files as root, so what an image's root wrote with mode 0600 is read, too; here they are the
agent's own. What a transfer makes goes back the same way and is root's. A copy takes room on this machine for as long
as the transfer lasts: an agent with root rights needs none (`confine.py`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile

from ..transfer.tree import FILE, LocalTree, TreeError
from .engine import Engine

READING = frozenset({"upload_artifacts", "archive_cache"})
PUT_BACK_S = 3600.0


class HelperTree(LocalTree):
    """A LocalTree over a copy in `folder`; `close` brings what was made into the container's volumes."""

    def __init__(self, engine: Engine, container: str, root: str, folder: str) -> None:
        self._engine = engine
        self._container = container
        self._there = root
        os.makedirs(folder, mode=0o700, exist_ok=True)
        super().__init__(folder)

    def fresh(self) -> HelperTree:
        """The same tree, open again."""
        return HelperTree(self._engine, self._container, self._there, self.root)

    def fill(self) -> None:
        """Bring the files here; TreeError says why they cannot be brought."""
        command = self._engine.command("cp", "%s:%s/." % (self._container, self._there), "-")
        sink = LocalTree(self.root)
        with subprocess.Popen(
            command,
            env=self._engine.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as bringing:
            try:
                _unpack(bringing.stdout, sink)
            except tarfile.TarError:
                bringing.kill()
            said = bringing.stderr.read().decode("utf-8", "replace").strip()
        sink.close(keep_links=True)
        if bringing.returncode:
            raise TreeError("the job's files cannot be brought from its volume: %s" % (said or "the copy broke off"))

    def close(self, *, keep_links: bool = False) -> list:
        """Finish what was made here, and bring it to where the job finds it."""
        made = bool(self._folders or self._links) or self._has_files()
        refused = super().close(keep_links=keep_links)
        if made and not self._is_filled():
            self._put_back()
        return refused

    def _is_filled(self) -> bool:
        return os.path.exists(self.root + ".filled")

    def _has_files(self) -> bool:
        return bool(os.listdir(self.root))

    def _put_back(self) -> None:
        command = self._engine.command("cp", "-", "%s:%s" % (self._container, self._there))
        with subprocess.Popen(
            command, env=self._engine.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=-1
        ) as taking:
            with contextlib.suppress(BrokenPipeError):
                _pack(self.root, taking.stdin)
                taking.stdin.close()
            said = taking.stderr.read().decode("utf-8", "replace").strip()
            taking.wait(PUT_BACK_S)
        if taking.returncode:
            raise TreeError("files cannot be brought into the job's volume: %s" % said)


def tree_for(engine: Engine, container: str, transfer: dict, folder: str) -> HelperTree:
    """The tree of one transfer, whose absolute paths become those of the copy; filled when the transfer reads."""
    os.umask(0)  # as helper stages everywhere: the image's user, whoever that is, may change what is made
    root = transfer["root"]
    for item in transfer["items"]:
        for name in ("paths", "exclude"):
            if item.get(name):
                item[name] = [_relative(path, root) for path in item[name]]
    tree = HelperTree(engine, container, root, folder)
    if transfer["do"] in READING:
        tree.fill()
        os.close(os.open(folder + ".filled", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return tree


def _relative(path: str, root: str) -> str:
    return path[len(root) + 1 :] if path.startswith(root + "/") else path


def _unpack(stream, sink: LocalTree) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            _put(sink, archive, member)


def _pack(folder: str, stream) -> None:
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in os.listdir(folder):
            archive.add(os.path.join(folder, name), arcname=name, filter=_of_root)


def _put(sink: LocalTree, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = os.path.normpath(member.name).lstrip("/")
    if path in {".", ""} or path.startswith("../"):
        return
    mode = member.mode | (0o700 if member.isdir() else 0o600)  # they are the agent's own here
    if member.isdir():
        sink.put_folder(path, mode, member.mtime)
    elif member.issym():
        sink.put_link(path, member.linkname)
    elif member.isreg():
        sink.put_file(path, mode, member.mtime, archive.extractfile(member), member.size)
    elif member.islnk():
        original = sink.entry(os.path.normpath(member.linkname).lstrip("/"))
        if original is not None and original.kind == FILE:
            for _, file in sink.read([original]):
                sink.put_file(path, mode, member.mtime, file, original.size)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
