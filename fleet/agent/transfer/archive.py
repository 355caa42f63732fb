"""Writes archives in the formats of artifacts and caches to a sink, from a tree, in one pass and in flat memory.

    write("zip", tree.read(entries), sink, "default")

Rule: a sink has `write(bytes)` and nothing more; what it raises goes to the caller. Equal files give equal bytes, so
that an archive can be made anew for each attempt. Formats: `zip`; `gzip`, one member for each file; `raw`, one file
as it is; `tarzstd` and `zipzstd` where the machine has the `zstd` program.
"""

from __future__ import annotations

import os
import struct
import tarfile
import zlib

from .speech import warn
from .tree import FILE, FOLDER, LINK, PIECE_BYTES, TreeError
from .zipping import Deflate, ZipWriter
from .zstandard import Packer, ZipPacking

FORMATS = ("zip", "gzip", "raw", "tarzstd", "zipzstd")
SUFFIXES = {"zip": ".zip", "zipzstd": ".zip", "gzip": ".gz", "tarzstd": ".tar.zst", "raw": ""}
LEVELS = {"fastest": 0, "fast": 1, "default": 6, "slow": 7, "slowest": 9}
_TAR_TYPES = {FILE: tarfile.REGTYPE, FOLDER: tarfile.DIRTYPE, LINK: tarfile.SYMTYPE}


def file_name(name: str, form: str) -> str:
    """What an archive of this name is called."""
    return (os.path.basename(name.rstrip("/")) or "artifacts") + SUFFIXES[form]


def write(form: str, contents, sink, level: str = "default") -> None:
    """All of `contents`, pairs of an entry and a reader, as an archive; TreeError for what the format cannot hold."""
    if form == "zip":
        _write_zip(_present(contents), sink, Deflate(LEVELS[level]))
    elif form == "zipzstd":
        _write_zip(_present(contents), sink, ZipPacking(level))
    elif form == "tarzstd":
        _write_tar_zstd(_present(contents), sink, level)
    elif form == "gzip":
        for entry, reader in _files(contents, "gzip"):
            _write_member(entry, reader, sink, LEVELS[level])
    elif form == "raw":
        _write_raw(_files(contents, "raw"), sink)
    else:
        raise TreeError("the format %r is not known: use one of %s" % (form, ", ".join(FORMATS)))


def _present(contents):
    """Without the files that are there no more."""
    for entry, reader in contents:
        if entry.kind == FILE and reader is None:
            warn("%s: it was there a moment ago and is not any more, it is left out" % entry.path)
            continue
        yield entry, reader


def _files(contents, form: str):
    """The files; folders count for nothing here, and links are refused."""
    for entry, reader in _present(contents):
        if entry.kind == FILE:
            yield entry, reader
        elif entry.kind != FOLDER:
            raise TreeError("%s is no regular file, and the format %s takes only such" % (entry.path, form))


def _write_zip(contents, sink, packing) -> None:
    with ZipWriter(sink, packing) as writer:
        for entry, reader in contents:
            writer.add(entry, reader)
        writer.close()


def _write_member(entry, reader, sink, level: int) -> None:
    """One member, with the file's name and time."""
    try:
        name = os.path.basename(entry.path).encode("latin-1") + b"\0"
    except UnicodeEncodeError:
        name = b""
    seconds = int(min(max(entry.mtime, 0), 0xFFFFFFFF))
    sink.write(struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 8 if name else 0, seconds, 0, 3) + name)
    packer, checksum, size = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9), 0, 0
    for piece in _pieces(reader, entry.size):
        checksum, size = zlib.crc32(piece, checksum), size + len(piece)
        _pass(sink, packer.compress(piece))
    _pass(sink, packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))


def _write_raw(files, sink) -> None:
    count = 0
    for entry, reader in files:
        count += 1
        if count > 1:
            raise TreeError("the format raw takes one file, and more than one matches: name exactly one in `paths`")
        for piece in _pieces(reader, entry.size):
            sink.write(piece)
    if not count:
        raise TreeError("the format raw takes one file, and no file matches: name exactly one in `paths`")


def _write_tar_zstd(contents, sink, level: str) -> None:
    packer = Packer(sink, level)
    try:
        for entry, reader in contents:
            _add_to_tar(entry, reader, packer)
        packer.write(bytes(2 * tarfile.BLOCKSIZE))
    except BaseException:
        packer.abandon()
        raise
    packer.close()


def _add_to_tar(entry, reader, out) -> None:
    info = tarfile.TarInfo(entry.path)
    info.type, info.mode, info.mtime = _TAR_TYPES[entry.kind], entry.mode, int(entry.mtime)
    info.linkname = entry.target
    info.size = entry.size if entry.kind == FILE else 0
    out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    if entry.kind != FILE:
        return
    left = entry.size
    for piece in _pieces(reader, entry.size):
        out.write(piece)
        left -= len(piece)
    if left:
        raise TreeError("%s became shorter while it was read: archive it when nothing writes to it" % entry.path)
    out.write(bytes(-entry.size % tarfile.BLOCKSIZE))


def _pieces(reader, size: int):
    """The content, at most as long as it was when it was opened."""
    left = size
    while left:
        piece = reader.read(min(left, PIECE_BYTES))
        if not piece:
            return
        left -= len(piece)
        yield piece


def _pass(sink, data: bytes) -> None:
    if data:
        sink.write(data)
