"""Writes a zip archive to something that can only be written to, in one pass.

Rule: memory holds a few pieces of files and the directory that ends the archive. Pieces are packed by all processors
and written in their order, so that equal files give equal bytes. A small file is read whole, so its sizes stand before
it; a larger one is followed by them. A file that grows meanwhile is cut where it was long when it was opened. Owners
are not kept; modes, times to the second, and links are.
"""

from __future__ import annotations

import functools
import os
import struct
import time
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from .tree import FILE, FOLDER, LINK, PIECE_BYTES

STORED, DEFLATED, ZSTANDARD = 0, 8, 93
LARGE = 0xF0000000  # from here on sizes take 64 bits; room for what compressing adds
LIMIT = 0xFFFFFFFF
UNIX = 3 << 8
UTF_8, SIZES_FOLLOW = 0x800, 0x8
SMALLEST = 64  # shorter files are not worth compressing
SMALL = 4096  # shorter files are packed sooner than another thread hears of them
MOST_WORKERS = 8
WINDOW = 1 << 15  # how far back Deflate looks
END_OF_DEFLATE = b"\x03\x00"  # an empty last block
TYPES = {FILE: 0o100000, FOLDER: 0o040000, LINK: 0o120000}
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")


class Deflate:
    """Packs pieces, each by itself: it is told what stood before it, and so they may be packed at once."""

    method = DEFLATED
    is_parallel = True

    def __init__(self, level: int) -> None:
        self._level = level

    def whole(self, data: bytes) -> bytes:
        """All of a small file."""
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
        return packer.compress(data) + packer.flush()

    def piece(self, data: bytes, before: bytes) -> bytes:
        """A piece of a larger one."""
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, before)
        return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)

    def begin(self) -> None:
        """A larger file begins."""

    def end(self) -> bytes:
        """It is over."""
        return END_OF_DEFLATE


class Done:
    """What needs no other thread."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def result(self) -> bytes:
        """It."""
        return self._value


class ZipWriter:
    """`packing` is `Deflate`, or another one whose pieces must be packed one after the other. Use it with `with`."""

    def __init__(self, sink, packing) -> None:
        self._sink = sink
        self._packing = packing
        self._at = 0
        self._central = []
        workers = min(MOST_WORKERS, processors())
        self._pool = ThreadPoolExecutor(workers)
        self._most_waiting = 2 * workers + 2
        self._waiting = deque()

    def __enter__(self) -> ZipWriter:  # noqa: PYI034  Python 3.8 has no Self
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def add(self, entry, reader) -> None:
        """One entry; `reader` for a file only."""
        if entry.kind == FOLDER:
            self._add_whole(entry, b"", entry.path + "/")
        elif entry.kind == LINK:
            self._add_whole(entry, entry.target.encode("utf-8", "surrogateescape"), entry.path)
        elif entry.size <= PIECE_BYTES:
            self._add_whole(entry, _read_all(reader, entry.size), entry.path)
        else:
            self._add_pieces(entry, reader)

    def close(self) -> None:
        """The directory; nothing may follow."""
        while self._waiting:
            self._settle()
        begin, size = self._at, 0
        for record in self._central:
            self._write(record)
            size += len(record)
        count = len(self._central)
        if count >= 0xFFFF or begin + size >= LIMIT:
            where = self._at
            self._write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, UNIX | 45, 45, 0, 0, count, count, size, begin))
            self._write(struct.pack("<IIQI", 0x07064B50, 0, where, 1))
            count, size, begin = min(count, 0xFFFF), min(size, LIMIT), min(begin, LIMIT)
        self._write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, begin, 0))

    def _add_whole(self, entry, data: bytes, path: str) -> None:
        def written(packed: bytes) -> None:
            method = self._packing.method if len(packed) < len(data) else STORED
            content = data if method == STORED else packed
            header, checksum = Header(entry, path, method, self._at), zlib.crc32(data)
            self._write(header.local(checksum, len(content), len(data)))
            self._write(content)
            self._central.append(header.central(checksum, len(content), len(data)))

        if len(data) < SMALLEST or entry.kind != FILE:
            self._then(Done(data), written)
        else:
            self._pack(functools.partial(self._packing.whole, data), len(data), written)

    def _add_pieces(self, entry, reader) -> None:
        writing = Writing()
        self._then(Done(b""), functools.partial(self._begin, entry, writing))
        self._packing.begin()
        checksum, left, before = 0, entry.size, b""
        while left:
            piece = reader.read(min(left, PIECE_BYTES))
            if not piece:
                break
            left -= len(piece)
            checksum = zlib.crc32(piece, checksum)
            self._pack(functools.partial(self._packing.piece, piece, before), len(piece), self._write)
            before = piece[-WINDOW:]
        self._then(Done(self._packing.end()), self._write)
        self._then(Done(b""), functools.partial(self._end, writing, checksum, entry.size - left))

    def _begin(self, entry, writing: Writing, _: bytes) -> None:
        wide = entry.size >= LARGE
        writing.header = Header(entry, entry.path, self._packing.method, self._at, follow=True, wide=wide)
        self._write(writing.header.local(0, 0, 0))
        writing.begin = self._at

    def _end(self, writing: Writing, checksum: int, size: int, _: bytes) -> None:
        packed = self._at - writing.begin
        self._write(writing.header.following(checksum, packed, size))
        self._central.append(writing.header.central(checksum, packed, size))

    def _pack(self, work, size: int, then) -> None:
        if size < SMALL or not self._packing.is_parallel:
            self._then(Done(work()), then)
        else:
            self._then(self._pool.submit(work), then)

    def _then(self, packed, then) -> None:
        """Do something with what is packed when all before it is written."""
        self._waiting.append((packed, then))
        while len(self._waiting) > self._most_waiting:
            self._settle()

    def _settle(self) -> None:
        packed, then = self._waiting.popleft()
        then(packed.result())

    def _write(self, data: bytes) -> None:
        if data:
            self._sink.write(data)
            self._at += len(data)


class Writing:
    """A larger file while it is written."""

    header = None
    begin = 0


def processors() -> int:
    """How many may be used."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


class Header:
    """The records about one entry: before it, after it, and in the directory."""

    def __init__(self, entry, path: str, method: int, at: int, *, follow: bool = False, wide: bool = False) -> None:
        self._name = path.encode("utf-8", "surrogateescape")
        self._flags = (SIZES_FOLLOW if follow else 0) | (UTF_8 if _needs_flag(path) else 0)
        self._method = method
        self._version = 63 if method == ZSTANDARD else 45 if wide else 20
        self._wide = wide
        self._at = at
        self._attributes = ((TYPES[entry.kind] | entry.mode) << 16) | (0x10 if entry.kind == FOLDER else 0)
        self._time, self._date = _dos_time(entry.mtime)
        seconds = int(min(max(entry.mtime, -0x80000000), 0x7FFFFFFF))
        self._stamp = struct.pack("<HHBi", 0x5455, 5, 1, seconds)

    def local(self, checksum: int, packed: int, size: int) -> bytes:
        """What stands before the content."""
        extra = self._stamp
        if self._wide:
            extra += struct.pack("<HHQQ", 1, 16, size, packed)
            packed = size = LIMIT
        about = self._flags, self._method, self._time, self._date, checksum, packed, size, len(self._name), len(extra)
        return _LOCAL.pack(0x04034B50, self._version, *about) + self._name + extra

    def following(self, checksum: int, packed: int, size: int) -> bytes:
        """What stands after the content, where it was not known before."""
        return struct.pack("<IIQQ" if self._wide else "<IIII", 0x08074B50, checksum, packed, size)

    def central(self, checksum: int, packed: int, size: int) -> bytes:
        """What stands in the directory."""
        wide, at = b"", self._at
        if self._wide or size >= LIMIT or packed >= LIMIT:
            wide += struct.pack("<QQ", size, packed)
            packed = size = LIMIT
        if at >= LIMIT:
            wide += struct.pack("<Q", at)
            at = LIMIT
        extra = self._stamp + (struct.pack("<HH", 1, len(wide)) + wide if wide else b"")
        version = max(self._version, 45 if wide else 20)
        about = self._flags, self._method, self._time, self._date, checksum, packed, size, len(self._name), len(extra)
        record = _CENTRAL.pack(0x02014B50, UNIX | version, version, *about, 0, 0, 0, self._attributes, at)
        return record + self._name + extra


def _needs_flag(path: str) -> bool:
    try:
        return not path.isascii() and bool(path.encode("utf-8"))
    except UnicodeEncodeError:  # not UTF-8 on the disk either
        return False


def _dos_time(seconds: float) -> tuple:
    """Time and date in UTC, two seconds fine, from 1980 to 2107."""
    try:
        year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    except (ValueError, OverflowError, OSError):
        year = 1980
    if not 1980 <= year <= 2107:
        return 0, (1 << 5) | 1
    return (hour << 11) | (minute << 5) | (second // 2), ((year - 1980) << 9) | (month << 5) | day


def _read_all(reader, size: int) -> bytes:
    """At most `size` bytes."""
    data = reader.read(size)
    while len(data) < size:
        more = reader.read(size - len(data))
        if not more:
            break
        data += more
    return data
