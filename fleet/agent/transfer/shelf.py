"""Where one cached archive lies on the machine: read, replaced as a whole, removed.

Rule: below the cache directory no link is followed, for jobs can write there and root may be the one who reads. A file
is written under another name and renamed, so nobody ever sees half of it; what jobs left that were ended in the middle
is swept out after a day.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

TEMPORARY = ".cache-"
FORGOTTEN_S = 24 * 3600.0
NEVER = float("-inf")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Shelf:
    """The place of one archive; use it with `with`."""

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        *self._parts, self._name = os.path.relpath(path, root).split("/")
        self._place = -1
        if ".." in self._parts:
            raise OSError(errno.EXDEV, "lies outside of the cache directory", path)

    def __enter__(self) -> Shelf:  # noqa: PYI034  Python 3.8 has no Self
        os.makedirs(self._root, exist_ok=True)
        self._place = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in self._parts:
                self._go(part)
        except BaseException:
            os.close(self._place)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._place)

    def _go(self, part: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=self._place)
        inner = os.open(part, _FOLDER, dir_fd=self._place)
        os.close(self._place)
        self._place = inner

    def opened(self):
        """The archive, or None when there is none."""
        try:
            number = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._place)
        except FileNotFoundError:
            return None
        return open(number, "rb")

    def changed_at(self) -> float:
        """When the archive was last changed."""
        try:
            return os.stat(self._name, dir_fd=self._place, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return NEVER

    @contextlib.contextmanager
    def anew(self):
        """A file that becomes the archive by `put`; it is gone afterwards unless it was put."""
        name = "%s%d.%d" % (TEMPORARY, os.getpid(), time.monotonic_ns())
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        number = os.open(name, flags, 0o600, dir_fd=self._place)
        with open(number, "w+b") as file:
            try:
                yield Draft(file, lambda: os.replace(name, self._name, src_dir_fd=self._place, dst_dir_fd=self._place))
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._place)

    def remove(self, file) -> None:
        """Remove the archive that is open, unless another has taken its place."""
        with contextlib.suppress(OSError):
            now = os.stat(self._name, dir_fd=self._place, follow_symlinks=False)
            if os.path.samestat(os.fstat(file.fileno()), now):
                os.unlink(self._name, dir_fd=self._place)

    def sweep(self) -> None:
        """Remove what jobs left that were ended in the middle."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._place):
                about = os.stat(name, dir_fd=self._place, follow_symlinks=False)
                if name.startswith(TEMPORARY) and about.st_mtime < time.time() - FORGOTTEN_S:
                    os.unlink(name, dir_fd=self._place)


class Draft:
    """An open file, and how it is put in place."""

    def __init__(self, file, rename) -> None:
        self.file = file
        self._rename = rename

    def put(self, changed_at: float | None = None) -> int:
        """Make it the archive; its size."""
        self.file.flush()
        if changed_at is not None:
            self.date(changed_at)
        self._rename()
        return os.fstat(self.file.fileno()).st_size

    def date(self, changed_at: float) -> None:
        """Say when it was changed."""
        os.utime(self.file.fileno(), (changed_at, changed_at))
