"""The files of a project directory: listed, read and written without ever leaving that directory.

Rule: paths are relative, with `/`, and a folder is reached one part at a time from the root's open descriptor, no
link followed by the kernel. A link on the way is followed here as far as it stays below the root (`LeadsOut`
otherwise), so that nobody who can write there, a service that still runs, say, can turn root's hands elsewhere.
Names that are no UTF-8 are carried as surrogates. Other trees (over a helper container) have the same methods.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections import deque

FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
PIECE_BYTES = 256 * 1024
MOST_LINKS = 40
_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}


class LeadsOut(OSError):
    """A path, or a link on it, leads out of the tree."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EXDEV, "leads out of the project directory", path)


class TreeError(Exception):
    """The tree cannot do what was asked; the text is for the job's log."""


class Entry:
    """One file, folder or link: `path` below the root, `mode` with permission bits only, `target` of a link."""

    __slots__ = ("kind", "mode", "mtime", "path", "size", "target")

    def __init__(
        self, path: str, kind: str, *, size: int = 0, mode: int = 0o644, mtime: float = 0.0, target: str = ""
    ) -> None:
        self.path = path
        self.kind = kind
        self.size = size
        self.mode = mode
        self.mtime = mtime
        self.target = target

    def __repr__(self) -> str:
        return "Entry(%r, %s)" % (self.path, self.kind)


class LocalTree:
    """The tree below a directory of this machine. `close` it: folders get their modes and links are made then."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._real = os.path.realpath(root)
        self._at = None  # the folder that was reached last, and its descriptor
        self._place = -1
        self._folders = []
        self._links = []

    def fresh(self) -> LocalTree:
        """The same tree, open again: `close` ends the use of one."""
        return LocalTree(self.root)

    # what is there

    def entry(self, path: str) -> Entry | None:
        """What a path names (a link is not followed), or None."""
        folder, name = os.path.split(path)
        try:
            if not name:
                return _entry("", os.fstat(self._top))
            place = self._folder(folder)
            about = os.stat(name, dir_fd=place, follow_symlinks=False)
            return _entry(path, about, os.readlink(name, dir_fd=place) if stat.S_ISLNK(about.st_mode) else "")
        except OSError:
            return None

    def children(self, folder: str) -> list:
        """The entries of a folder by name; none of what is no folder or leads out."""
        try:
            place = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder(folder))
        except (FileNotFoundError, NotADirectoryError, LeadsOut):
            return []
        try:
            with os.scandir(place) as found:
                names = sorted(found, key=lambda each: each.name)
                entries = [self._listed(folder, each, place) for each in names]
        finally:
            os.close(place)
        return [entry for entry in entries if entry is not None]

    def _listed(self, folder: str, found: os.DirEntry, place: int) -> Entry | None:
        try:
            about = found.stat(follow_symlinks=False)
            target = os.readlink(found.name, dir_fd=place) if stat.S_ISLNK(about.st_mode) else ""
        except FileNotFoundError:
            return None
        return _entry(folder + "/" + found.name if folder else found.name, about, target)

    def read(self, entries):
        """Each entry with a reader (`read(n)`) of its content; None for what is no file, or is one no more."""
        for entry in entries:
            if entry.kind != FILE:
                yield entry, None
                continue
            opened = self._open(entry)
            if opened is None:
                yield entry, None
                continue
            with opened as file:
                yield entry, file

    def _open(self, entry: Entry):
        folder, name = os.path.split(entry.path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            number = os.open(name, flags, dir_fd=self._folder(folder))
        except (FileNotFoundError, NotADirectoryError, LeadsOut):
            return None
        except OSError as exc:
            if exc.errno == errno.ELOOP:  # it has become a link
                return None
            raise OSError(exc.errno, exc.strerror, entry.path) from exc
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            os.close(number)
            return None
        entry.size, entry.mtime = about.st_size, about.st_mtime
        return open(number, "rb", buffering=0)

    def untracked(self) -> list:
        """Paths that git does not track, ignored ones too; `TreeError` says why git cannot tell."""
        command = ["git", "-c", "safe.directory=*", "ls-files", "-o", "-z"]
        try:
            done = subprocess.run(command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, check=False)
        except OSError as exc:
            raise TreeError("git could not be run: %s" % exc.strerror) from exc
        if done.returncode:
            raise TreeError("git ls-files failed: %s" % done.stderr.decode("utf-8", "replace").strip()[-500:])
        return [os.fsdecode(path) for path in done.stdout.split(b"\0") if path]

    # what is made

    def put_folder(self, path: str, mode: int, mtime: float) -> None:
        """Make a folder with what leads to it; its mode and time are set by `close`."""
        self._folder(path, make=True)
        self._folders.append((path, mode & 0o777, mtime))

    def put_file(self, path: str, mode: int, mtime: float, reader, size: int) -> None:
        """Write a file of `size` bytes from a reader; what stood there is replaced, a link is not followed."""
        folder, name = os.path.split(path)
        place = self._folder(folder, make=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            number = os.open(name, flags, 0o600, dir_fd=place)
        except FileExistsError:
            os.unlink(name, dir_fd=place)
            number = os.open(name, flags, 0o600, dir_fd=place)
        with open(number, "wb", buffering=0) as file:
            _copy(reader, file, size)
            os.fchmod(number, mode & 0o777)
            os.utime(number, (mtime, mtime))

    def put_link(self, path: str, target: str) -> None:
        """A link, made by `close`, so that nothing is written through it."""
        self._links.append((path, target))

    def close(self, *, keep_links: bool = False) -> list:
        """Finish what was made; the links (path, target) that were not made because they lead out of the tree."""
        try:
            refused = [link for link in self._links if not self._made(*link)]
            # only now, for where one link leads may hang on another
            if not keep_links:
                refused += [link for link in self._links if link not in refused and self._removed(link[0])]
            for path, mode, mtime in reversed(self._folders):
                self._finish_folder(path, mode, mtime)
            return refused
        finally:
            self._folders, self._links = [], []
            self._forget()
            if self._top >= 0:
                os.close(self._top)
                self._top = -1

    def _made(self, path: str, target: str) -> bool:
        folder, name = os.path.split(path)
        try:
            place = self._folder(folder, make=True)
        except LeadsOut:
            return False
        try:
            os.symlink(target, name, dir_fd=place)
        except FileExistsError:
            os.unlink(name, dir_fd=place)
            os.symlink(target, name, dir_fd=place)
        return True

    def _removed(self, path: str) -> bool:
        folder, name = os.path.split(path)
        try:
            os.close(self._reach(path, make=False))
        except LeadsOut:
            os.unlink(name, dir_fd=self._folder(folder))
            return True
        except OSError:  # it leads to a file, or to nothing
            return False
        return False

    def _finish_folder(self, path: str, mode: int, mtime: float) -> None:
        try:
            number = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder(path))
        except OSError:
            return
        try:
            os.fchmod(number, mode)
            os.utime(number, (mtime, mtime))
        except PermissionError:  # it was there before and is another's
            pass
        finally:
            os.close(number)

    # the way to a folder

    def _folder(self, path: str, *, make: bool = False) -> int:
        """The descriptor of a folder; it is ours until the next call."""
        if path != self._at:
            number = self._reach(path, make=make)
            self._forget()
            self._at, self._place = path, number
        return self._place

    def _forget(self) -> None:
        if self._place >= 0:
            os.close(self._place)
        self._at, self._place = None, -1

    def _reach(self, path: str, *, make: bool) -> int:
        way = Way(self._top, self._real, path)
        try:
            while way.parts:
                way.step(make=make)
            return way.arrive()
        finally:
            way.close()


class Way:
    """A walk from the root to a folder: the descriptors passed, and the parts still to go."""

    def __init__(self, top: int, real: str, path: str) -> None:
        self.parts = deque(path.split("/"))
        self._path = path
        self._real = real
        self._passed = [os.dup(top)]
        self._links = 0

    def step(self, *, make: bool) -> None:
        """Go one part further."""
        name = self.parts.popleft()
        if name in {"", "."}:
            return
        if name == "..":
            if len(self._passed) == 1:
                raise LeadsOut(self._path)
            os.close(self._passed.pop())
            return
        try:
            self._passed.append(os.open(name, _THROUGH, dir_fd=self._passed[-1]))
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name, dir_fd=self._passed[-1])
            self.parts.appendleft(name)
        except OSError as exc:
            if exc.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            self._follow(name)

    def _follow(self, name: str) -> None:
        try:
            target = os.readlink(name, dir_fd=self._passed[-1])
        except OSError as exc:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", self._path) from exc
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, "Too many levels of symbolic links", self._path)
        if target.startswith("/"):
            inside = below(self._real, target)
            if inside is None:
                raise LeadsOut(self._path)
            while len(self._passed) > 1:
                os.close(self._passed.pop())
            target = inside
        self.parts.extendleft(reversed(target.split("/")))

    def arrive(self) -> int:
        """The descriptor of the folder, which the caller closes."""
        return self._passed.pop()

    def close(self) -> None:
        """Close what was passed."""
        for number in self._passed:
            os.close(number)


def below(root: str, path: str) -> str | None:
    """An absolute path as one below the root, `..` not resolved; None for what does not begin there."""
    if path == root or path.startswith(root.rstrip("/") + "/"):
        return path[len(root) :].lstrip("/")
    return None


def _entry(path: str, about: os.stat_result, target: str = "") -> Entry:
    kind = _KINDS.get(stat.S_IFMT(about.st_mode), OTHER)
    size = about.st_size if kind == FILE else 0
    return Entry(path, kind, size=size, mode=stat.S_IMODE(about.st_mode), mtime=about.st_mtime, target=target)


def _copy(reader, file, size: int) -> None:
    left = size
    while left:
        piece = reader.read(min(left, PIECE_BYTES))
        if not piece:
            raise TreeError("the archive ends in the middle of a file")
        left -= len(piece)
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
