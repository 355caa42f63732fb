"""Zstandard by the machine's own program: a compressor and a reader. Python 3.8 has none.

Rule: the program reads and writes pipes only, and is gone when the object is closed. Where the machine has no `zstd`
the caller hears a `TreeError` that names it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading

from .tree import PIECE_BYTES, TreeError
from .zipping import ZSTANDARD

LEVELS = {"fastest": 1, "fast": 2, "default": 3, "slow": 8, "slowest": 15}


def program() -> str:
    """Where `zstd` is."""
    found = shutil.which("zstd")
    if found is None:
        raise TreeError("this machine has no `zstd` program: install it on the machine, or use another format")
    return found


class Packer:
    """Compresses to a sink: what is written here is compressed there. One thread moves the program's output."""

    def __init__(self, sink, level: str) -> None:
        command = [program(), "-q", "-c", "-%d" % LEVELS[level]]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._sink = sink
        self._fault = None
        self._thread = threading.Thread(target=self._move)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Compress; raises what the sink raised."""
        try:
            self._process.stdin.write(data)
        except BrokenPipeError:
            self._fail()

    def close(self) -> None:
        """All is written."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._thread.join()
        if self._process.wait() or self._fault:
            self._fail()

    def abandon(self) -> None:
        """End without finishing."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._thread.join()
        self._process.wait()

    def _move(self) -> None:
        with self._process.stdout as output:
            for piece in iter(lambda: output.read1(PIECE_BYTES), b""):
                try:
                    self._sink.write(piece)
                except Exception as exc:  # noqa: BLE001  it is raised in the thread that writes
                    self._fault = exc
                    return

    def _fail(self) -> None:
        self._thread.join()
        raise self._fault or TreeError("zstd failed with exit code %s" % self._process.wait())


class ZipPacking:
    """Packs the files of a zip archive, one after the other, a process for each."""

    method = ZSTANDARD
    is_parallel = False

    def __init__(self, level: str) -> None:
        self._level = level
        self._got = []
        self._packer = None

    def write(self, data: bytes) -> None:
        """The program's output, in its thread."""
        self._got.append(data)

    def whole(self, data: bytes) -> bytes:
        """All of a small file."""
        self.begin()
        return self.piece(data, b"") + self.end()

    def begin(self) -> None:
        """A larger file begins."""
        self._packer = Packer(self, self._level)

    def piece(self, data: bytes, _before: bytes) -> bytes:
        """What came out so far."""
        self._packer.write(data)
        return self._take()

    def end(self) -> bytes:
        """The rest."""
        self._packer.close()
        return self._take()

    def _take(self) -> bytes:
        taken, self._got = self._got, []
        return b"".join(taken)


class Reader:
    """Reads what a reader's Zstandard bytes hold."""

    def __init__(self, source) -> None:
        self._process = subprocess.Popen([program(), "-q", "-d", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._source = source
        self._fault = None
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def read(self, count: int) -> bytes:
        """At most so many bytes; none at the end."""
        data = self._process.stdout.read(count)
        if not data:
            self._thread.join()
            if self._fault or self._process.wait():
                raise TreeError("the archive is damaged: zstd cannot read it")
        return data

    def close(self) -> None:
        """End the program, also in the middle."""
        self._process.kill()
        self._process.stdout.close()
        self._thread.join()
        self._process.wait()

    def _feed(self) -> None:
        try:
            with self._process.stdin as stdin:
                for piece in iter(lambda: self._source.read(PIECE_BYTES), b""):
                    stdin.write(piece)
        except BrokenPipeError:  # the program has ended, and its exit code tells
            return
        except Exception as exc:  # noqa: BLE001  it is told in the thread that reads
            self._fault = exc
