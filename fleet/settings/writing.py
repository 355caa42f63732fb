"""Saves what the manager itself must change in the configuration file: entries and tokens.

Rule: the file is replaced as a whole (written beside it, made durable, renamed), with its mode and owner kept, so that
a crash leaves the old file or the new one. Every save returns the hash of what is now in the file, by which the
watcher knows our own write and does not reload for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fleet.sdk import FleetError
from fleet.settings.editing import RunnerMatch, TextNotEdited, with_runner, with_values, without_runner
from fleet.settings.environment import Env
from fleet.settings.settings import content_hash

NEW_FILE = "concurrent = 1\n"
PRIVATE = 0o600
HINTS = {
    errno.EACCES: "this user must be allowed to write in its directory, because the file is replaced as a whole",
    errno.EPERM: "this user must be allowed to write in its directory, because the file is replaced as a whole",
    errno.EROFS: "its file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EBUSY: "it is mounted as a single file: mount its directory instead",
    errno.ENOENT: "its directory does not exist",
}


class ConfigNotWritable(FleetError):
    """The configuration file could not be replaced; it is as it was."""

    slug = "config_not_writable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What is in the file now.

    Attributes:
        content_hash: equals `Loaded.content_hash` of the next load, unless somebody else writes in between.
        changed: False when the file said all of it already and was not touched.
        replaced_hash: of what was in the file before.
    """

    content_hash: str
    changed: bool
    replaced_hash: str | None = None


def add_runner(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> Saved:
    """Append an entry; a file that does not exist is made.

    Args:
        path: the configuration file.
        entry: the keys of `[[runners]]`; tables below it are mappings. Keys with None are left out.

    Raises:
        ConfigNotWritable: the file is as it was.
    """
    given = {key: value for key, value in entry.items() if value is not None}
    return _edit(path, lambda text: with_runner(text, given), may_be_new=True)


def remove_runner(path: str | os.PathLike[str], which: RunnerMatch, env: Env) -> Saved:
    """Take an entry out of the file.

    Raises:
        EntryNotFound: there is no such entry, or more than one.
        ConfigNotWritable: the file is as it was.
    """
    return _edit(path, lambda text: without_runner(text, which, env))


def set_token(
    path: str | os.PathLike[str],
    which: RunnerMatch,
    env: Env,
    *,
    token: str,
    obtained_at: datetime | None,
    expires_at: datetime | None,
    runner_id: int | None = None,
) -> Saved:
    """Write a new token into its entry, and the runner's id where it is told.

    Raises:
        EntryNotFound: there is no such entry, or more than one.
        ConfigNotWritable: the file is as it was.
    """
    values: dict[str, Any] = {
        "token_expires_at": expires_at and expires_at.replace(microsecond=0),
        "token_obtained_at": obtained_at and obtained_at.replace(microsecond=0),
        "token": token,
    }
    if runner_id is not None:
        values["id"] = runner_id
    return _edit(path, lambda text: with_values(text, which, values, env))


def _edit(path: str | os.PathLike[str], change: Callable[[str], str], *, may_be_new: bool = False) -> Saved:
    target = os.path.realpath(path)
    with _only_one_writer(target):
        content = _content(target, may_be_new=may_be_new)
        try:
            text = content.decode("utf-8-sig")
            mark = content[: len(content) - len(text.encode())]  # a byte order mark stays
            changed = mark + change(text).encode()
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ConfigNotWritable(
                f"{target} was not changed: it is not TOML just now; fleetctl config lint says where"
            ) from exc
        except TextNotEdited as exc:
            raise ConfigNotWritable(f"{target} was not changed: {exc}") from exc
        if changed != content:
            _replace(target, changed)
    return Saved(content_hash=content_hash(changed), changed=changed != content, replaced_hash=content_hash(content))


def _content(target: str, *, may_be_new: bool) -> bytes:
    try:
        with open(target, "rb") as file:
            return file.read()
    except FileNotFoundError as exc:
        if may_be_new:
            return NEW_FILE.encode()
        raise ConfigNotWritable(f"{target} was not changed: there is no such file") from exc
    except OSError as exc:
        raise _not_writable(target, exc) from exc


@contextlib.contextmanager
def _only_one_writer(target: str) -> Iterator[None]:
    """Holds others of us off, such as `fleetctl register` beside a manager that renews a token."""
    try:
        directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise _not_writable(target, exc) from exc
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks; then the last writer wins
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _replace(target: str, content: bytes) -> None:
    directory = os.path.dirname(target)
    temporary = None
    try:
        old = os.stat(target) if os.path.exists(target) else None
        number, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(target)}.")
        with os.fdopen(number, "wb") as file:
            file.write(content)
            os.fchmod(number, stat.S_IMODE(old.st_mode) if old is not None else PRIVATE)
            _keep_owner(number, old)
            file.flush()
            os.fsync(number)
        os.replace(temporary, target)
        temporary = None
        _make_durable(directory)
    except OSError as exc:
        raise _not_writable(target, exc) from exc
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _keep_owner(number: int, old: os.stat_result | None) -> None:
    new = os.fstat(number)
    if old is not None and (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(number, old.st_uid, old.st_gid)


def _make_durable(directory: str) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _not_writable(target: str, exc: OSError) -> ConfigNotWritable:
    hint = HINTS.get(exc.errno or 0)
    return ConfigNotWritable(f"{target} cannot be written: {exc.strerror}{'; ' + hint if hint else ''}")
