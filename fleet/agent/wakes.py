"""How a supervisor and the `serve` processes wake each other without asking again and again.

Each `serve` has a named pipe in the folder `serve`; a supervisor writes its lease into all of them when its log or
state changed. Each supervisor has a named pipe `wake` in its lease's folder; `serve` writes a byte when it has left
word in `control`. Rule: a wake carries no news, only where to look; one that is lost in a full pipe is made good by
the reader, who then looks everywhere.
"""

from __future__ import annotations

import os
import stat
import time

from .home import discard

DRAIN_BYTES = 65536
OVERFLOW_BYTES = 60000
SETTLED_NS = 100 * 1000 * 1000


class Ear:
    """The reading end of a named pipe."""

    def __init__(self, path: str) -> None:
        self.path = path
        hidden = "%s/.%s" % (os.path.dirname(path), os.path.basename(path))
        discard(hidden)
        os.mkfifo(hidden, 0o600)
        # Opened for writing too, so that it is never at its end; and named last, because one without a reader is
        # taken for dead and removed.
        self.number = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.rename(hidden, path)

    def heard(self) -> tuple:
        """Names that were written, and whether some may have been lost."""
        try:
            data = os.read(self.number, DRAIN_BYTES)
        except BlockingIOError:
            return set(), False
        return set(data.decode("ascii", "replace").split("\n")) - {""}, len(data) > OVERFLOW_BYTES

    def close(self) -> None:
        """Remove the pipe."""
        os.close(self.number)
        discard(self.path)


def knock(path: str, name: str) -> bool:
    """Write a name into a named pipe; False when nobody reads there any more."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        os.write(number, name.encode() + b"\n")
    except BlockingIOError:  # full: the reader will look everywhere
        return True
    except OSError:
        return False
    finally:
        os.close(number)
    return True


class Doors:
    """The named pipes of all `serve` processes."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._listed_at = 0
        self._paths = []

    def knock(self, name: str) -> None:
        """Tell every `serve` process to look at a lease; remove the pipes of those that were killed."""
        changed_at = os.stat(self._folder).st_mtime_ns
        if changed_at + SETTLED_NS > self._listed_at:  # a second change may bear the same time of day
            self._listed_at = time.time_ns()
            paths = (os.path.join(self._folder, entry) for entry in os.listdir(self._folder) if entry[0] != ".")
            self._paths = [path for path in paths if stat.S_ISFIFO(os.lstat(path).st_mode)]
        for path in list(self._paths):
            if not knock(path, name):
                self._paths.remove(path)
                discard(path)
