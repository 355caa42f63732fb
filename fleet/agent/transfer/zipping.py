"""Writes a zip archive to something that can only be written to, in one pass.

Rule: memory holds one piece of one file and the directory that ends the archive. A small file is read whole, so its
sizes stand before it; a larger one is followed by them. A file that grows meanwhile is cut where it was long when it
was opened. Owners are not kept; modes, times to the second, and links are.
"""

from __future__ import annotations

import struct
import time
import zlib

from .tree import FILE, FOLDER, LINK, PIECE_BYTES

STORED, DEFLATED, ZSTANDARD = 0, 8, 93
LARGE = 0xF0000000  # from here on sizes take 64 bits; room for what compressing adds
LIMIT = 0xFFFFFFFF
UNIX = 3 << 8
UTF_8, SIZES_FOLLOW = 0x800, 0x8
SMALLEST = 64  # shorter files are not worth compressing
TYPES = {FILE: 0o100000, FOLDER: 0o040000, LINK: 0o120000}
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")


class ZipWriter:
    """`packer` makes compressors: objects with `compress` and `flush`, and `method`."""

    def __init__(self, sink, packer) -> None:
        self._sink = sink
        self._packer = packer
        self._at = 0
        self._count = 0
        self._central = []

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
        begin, size = self._at, 0
        for record in self._central:
            self._write(record)
            size += len(record)
        count = self._count
        if count >= 0xFFFF or begin + size >= LIMIT:
            where = self._at
            self._write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, UNIX | 45, 45, 0, 0, count, count, size, begin))
            self._write(struct.pack("<IIQI", 0x07064B50, 0, where, 1))
            count, size, begin = min(count, 0xFFFF), min(size, LIMIT), min(begin, LIMIT)
        self._write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, begin, 0))

    def _add_whole(self, entry, data: bytes, path: str) -> None:
        checksum, size, method = zlib.crc32(data), len(data), STORED
        if size >= SMALLEST and entry.kind == FILE:
            packer = self._packer()
            packed = packer.compress(data) + packer.flush()
            if len(packed) < size:
                data, method = packed, packer.method
        header = Header(entry, path, method, self._at)
        self._write(header.local(checksum, len(data), size))
        self._write(data)
        self._list(header.central(checksum, len(data), size))

    def _add_pieces(self, entry, reader) -> None:
        packer = self._packer()
        header = Header(entry, entry.path, packer.method, self._at, follow=True, wide=entry.size >= LARGE)
        self._write(header.local(0, 0, 0))
        begin, checksum, left = self._at, 0, entry.size
        while left:
            piece = reader.read(min(left, PIECE_BYTES))
            if not piece:
                break
            left -= len(piece)
            checksum = zlib.crc32(piece, checksum)
            self._write(packer.compress(piece))
        self._write(packer.flush())
        packed, size = self._at - begin, entry.size - left
        self._write(header.following(checksum, packed, size))
        self._list(header.central(checksum, packed, size))

    def _list(self, record: bytes) -> None:
        self._central.append(record)
        self._count += 1

    def _write(self, data: bytes) -> None:
        if data:
            self._sink.write(data)
            self._at += len(data)


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
