"""Unpacks an archive into a tree. Its first bytes say what it is: zip, tar with Zstandard, or gzip.

    extract(file, tree, name="junit.xml.gz")

Rule: an archive is a stranger's. An entry with an absolute name or `..`, one that would be written through a link that
leads out of the tree, a link that leads out, and whatever is neither file nor folder nor link are refused, each with a
line in the log; the rest is unpacked. Links are made last. An archive that is damaged is a `TreeError`.
"""

from __future__ import annotations

import functools
import gzip
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from calendar import timegm

from .. import system
from .speech import warn
from .tree import FILE, FOLDER, LINK, OTHER, Entry, LeadsOut, TreeError
from .zipping import ZSTANDARD
from .zstandard import Reader

MOST_TOLD = 20
MOST_TARGET_BYTES = 4096
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK, 0: FILE}
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,
    gzip.BadGzipFile,
)


def extract(file, tree, *, name: str = "", keep_links: bool = False) -> int:
    """Unpack a seekable file and `close` the tree; how many entries were made.

    `name` is what the content of a plain gzip is called, less `.gz`. `keep_links` makes links that lead out, too.
    """
    sink = Sink(tree, keep_links=keep_links)
    try:
        _reader_of(file)(file, sink, name)
    except DAMAGED as exc:
        raise TreeError("the archive is damaged: %s" % exc) from exc
    finally:
        sink.close()
    return sink.made


class Sink:
    """Puts entries into a tree if they may be there."""

    def __init__(self, tree, *, keep_links: bool) -> None:
        self.made = 0
        self._tree = tree
        self._keep_links = keep_links
        self._refused = 0

    def put(self, entry: Entry, opened) -> None:
        """One entry, with the path that the archive says; `opened()` gives the reader of a file's content."""
        name, path = entry.path, inside(entry.path)
        if path is None:
            self.refuse(name, "its name leads out of the project directory")
        elif entry.kind == OTHER:
            self.refuse(name, "it is neither a file nor a folder nor a link")
        elif entry.kind == LINK and not self._keep_links and _leads_out(path, entry.target):
            self.refuse(name, "it is a link that leads out of the project directory, to %s" % entry.target)
        elif path:
            try:
                self._make(path, entry, opened)
                self.made += 1
            except LeadsOut:
                self.refuse(name, "a link on the way to it leads out of the project directory")

    def _make(self, path: str, entry: Entry, opened) -> None:
        if entry.kind == FOLDER:
            self._tree.put_folder(path, entry.mode, entry.mtime)
        elif entry.kind == LINK:
            self._tree.put_link(path, entry.target)
        else:
            reader = opened()
            try:
                self._tree.put_file(path, entry.mode, entry.mtime, reader, entry.size)
            finally:
                reader.close()

    def refuse(self, name: str, why: str) -> None:
        """Say that an entry is not unpacked."""
        self._refused += 1
        if self._refused <= MOST_TOLD:
            warn("%s: not unpacked: %s" % (name, why))

    def close(self) -> None:
        """Finish the tree."""
        for path, target in self._tree.close(keep_links=self._keep_links):
            self.made -= 1
            self.refuse(path, "it is a link that leads out of the project directory, to %s" % target)
        if self._refused > MOST_TOLD:
            warn("%d further entries were not unpacked" % (self._refused - MOST_TOLD))


def inside(name: str) -> str | None:
    """The path below the root of an archive's name; None for one that leads out."""
    if not name or name.startswith("/") or "\0" in name:
        return None
    parts = [part for part in name.split("/") if part not in {"", "."}]
    return None if ".." in parts else "/".join(parts)


def _leads_out(path: str, target: str) -> bool:
    """Whether a link does so by its words alone; the tree finds out what else it may do."""
    if not target or target.startswith("/") or "\0" in target:
        return True
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return end == ".." or end.startswith("../")


def _reader_of(file):
    file.seek(0)
    begin = file.read(4)
    file.seek(0)
    if begin[:2] == b"PK":
        return _extract_zip
    if begin == b"\x28\xb5\x2f\xfd":
        return _extract_tar_zstd
    if begin[:2] == b"\x1f\x8b":
        return _extract_gzip
    raise TreeError("the file is no archive: it is neither zip nor gzip nor Zstandard")


def _extract_zip(file, sink: Sink, _name: str) -> None:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            entry = _entry_of(info)
            if info.flag_bits & 1:
                sink.refuse(entry.path, "it is encrypted")
                continue
            if entry.kind == LINK:
                entry.target = _target_of(archive, info)
            sink.put(entry, _opener(archive, file, info))


def _entry_of(info: zipfile.ZipInfo) -> Entry:
    name, mode = _name_of(info), info.external_attr >> 16
    kind = _KINDS.get(stat.S_IFMT(mode), OTHER)
    if name.endswith("/"):
        kind = FOLDER
    permissions = mode & 0o777 or (0o755 if kind == FOLDER else 0o644)
    return Entry(name, kind, size=info.file_size, mode=permissions, mtime=_time_of(info))


def _name_of(info: zipfile.ZipInfo) -> str:
    """The name as it is on a disk: bytes that are perhaps no UTF-8."""
    name = info.orig_filename
    if not info.flag_bits & 0x800:
        name = name.encode("cp437").decode("utf-8", "surrogateescape")
    return name


def _target_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    with archive.open(info) as file:
        return file.read(MOST_TARGET_BYTES).decode("utf-8", "surrogateescape")


def _time_of(info: zipfile.ZipInfo) -> float:
    """The time to the second where the archive has it, else its directory's in UTC."""
    extra = info.extra
    while len(extra) >= 4:
        tag, size = struct.unpack("<HH", extra[:4])
        if tag == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return float(struct.unpack("<i", extra[5:9])[0])
        extra = extra[4 + size :]
    try:
        return float(timegm((*info.date_time, 0, 0, 0)))
    except (ValueError, OverflowError):
        return system.wall_s()


def _opener(archive: zipfile.ZipFile, file, info: zipfile.ZipInfo):
    if info.compress_type != ZSTANDARD:
        return lambda: archive.open(info)
    return lambda: Reader(Window(file, _content_at(file, info), info.compress_size))


def _content_at(file, info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("an entry is not where the directory says")
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + name + extra


class Window:
    """Reads a part of a file."""

    def __init__(self, file, at: int, size: int) -> None:
        self._file = file
        self._file.seek(at)
        self._left = size

    def read(self, count: int) -> bytes:
        """At most so many bytes."""
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        return data


def _extract_tar_zstd(file, sink: Sink, _name: str) -> None:
    reader = Reader(file)
    try:
        _extract_tar(reader, sink)
    finally:
        reader.close()


def _extract_gzip(file, sink: Sink, name: str) -> None:
    """A tar inside is unpacked; anything else becomes one file."""
    with gzip.open(file) as content:
        is_tar = content.read(512)[257:262] == b"ustar"
    file.seek(0)
    if is_tar:
        with gzip.open(file) as content:
            _extract_tar(content, sink)
        return
    size = 0
    with gzip.open(file) as content:
        for piece in iter(lambda: content.read(1 << 20), b""):
            size += len(piece)
    file.seek(0)
    path = name[:-3] if name[-3:] == ".gz" else name
    entry = Entry(path or "default", FILE, size=size, mtime=system.wall_s())
    sink.put(entry, functools.partial(gzip.open, file))


def _extract_tar(reader, sink: Sink) -> None:
    with tarfile.open(fileobj=reader, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
        for info in archive:
            kind = FILE if info.isreg() else FOLDER if info.isdir() else LINK if info.issym() else OTHER
            entry = Entry(
                info.name, kind, size=info.size, mode=info.mode, mtime=float(info.mtime), target=info.linkname
            )
            sink.put(entry, functools.partial(archive.extractfile, info))
