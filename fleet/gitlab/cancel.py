"""A stop sign that a thread blocked on a socket can see.

Rule: once set it stays set, and it costs nothing while nobody sets it. A `threading.Event` cannot be waited for
together with a socket, so the sign is a pipe with one byte in it: any number of threads can poll its reading end
next to their socket, and all of them wake. `set()` takes no lock and is safe in a signal handler.
"""

from __future__ import annotations

import os
import select
import weakref
from types import TracebackType
from typing import Self


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Cancel:
    """Make one per thing that is stopped at once (the process, a runner), share it, close it at the end."""

    def __init__(self) -> None:
        self._is_set = False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._finalizer = weakref.finalize(self, _close, self._reading, self._writing)

    def set(self) -> None:
        """Wake everything that waits on it, now and later."""
        if not self._is_set and self._finalizer.alive:
            self._is_set = True
            os.write(self._writing, b"!")

    def is_set(self) -> bool:
        """Whether somebody has said stop."""
        return self._is_set

    def fileno(self) -> int:
        """A descriptor that becomes, and stays, readable when the sign is set."""
        return self._reading

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s`; True as soon as the sign is set."""
        if not self._is_set and timeout_s > 0:
            poller = select.poll()
            poller.register(self._reading, select.POLLIN)
            poller.poll(timeout_s * 1000)
        return self._is_set

    def close(self) -> None:
        """Give the descriptors back; only when nobody waits on it any more."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
