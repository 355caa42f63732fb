"""Makes and removes the folders and files of a job. Runs in a child that has dropped to the job's user.

Rule: as the job's user nothing can be done that the user could not do, so links that a job has left lead nowhere new.
The one thing done as root is making a folder for the user inside a folder that only root can change (`grant_folder`).
"""

from __future__ import annotations

import os
import stat

from .home import discard
from .identity import Identity

FOREIGN_WRITE = stat.S_IWGRP | stat.S_IWOTH


def grant_folder(path: str, identity: Identity) -> None:
    """As root: make the first missing part of a path and give it to the user, if no part is in others' hands.

    Each part is opened in the folder before it, which only root can change, so no link can be slipped in between. Where
    a folder belongs to somebody else nothing is done: the user makes the rest, or fails as it should.
    """
    if not identity.drops:
        return
    place = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in os.path.normpath(path).strip("/").split("/"):
            about = os.fstat(place)
            if about.st_uid != 0 or about.st_mode & FOREIGN_WRITE:
                return
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=place)
                os.chown(part, identity.uid, identity.gid, dir_fd=place, follow_symlinks=False)
                return
            os.close(place)
            place = inner
    finally:
        os.close(place)


def prepare(folder: str, directories: list, files: list) -> None:
    """Make the folder where stages start, then the folders, then the files of the job file."""
    os.makedirs(folder, exist_ok=True)
    for directory in directories:
        os.makedirs(directory["path"], exist_ok=True)
        os.chmod(directory["path"], directory.get("mode", 0o700))
    for file in files:
        write_file(file["path"], file.get("mode", 0o600), file["text"])


def write_file(path: str, mode: int, text: str) -> None:
    """Replace a file; a link in its place is removed, not followed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    discard(path)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(number, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.chmod(path, mode)


def remove_all(paths: list) -> None:
    """Remove files and trees; what is absent is fine, the first thing that could not be removed is told at the end."""
    failed = None
    for path in paths:
        try:
            remove(path)
        except OSError as exc:
            failed = failed or exc
    if failed is not None:
        raise failed


def remove(path: str) -> None:
    """Remove a file, a link or a tree, read-only folders too; never through a link."""
    try:
        about = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(about.st_mode):
        os.unlink(path)
        return
    if about.st_mode & 0o700 != 0o700 and about.st_uid == os.geteuid():
        os.chmod(path, 0o700)
    with os.scandir(path) as entries:
        names = [entry.path for entry in entries]
    failed = None
    for name in names:
        try:
            remove(name)
        except OSError as exc:
            failed = failed or exc
    if failed is not None:
        raise failed
    os.rmdir(path)


def give_all(paths: list, uid: int, gid: int) -> None:
    """Give files and trees to a user; never what a link points to."""
    for path in paths:
        for folder, _, names in os.walk(path):
            os.chown(folder, uid, gid, follow_symlinks=False)
            for name in names:
                os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)
