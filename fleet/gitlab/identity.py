"""The identity of a manager towards GitLab: its system id, kept beside the configuration.

Rule: two managers with one token and one system id look like one manager to GitLab, so an id that was kept is never
replaced in silence, and a new one is kept before it is used. It is the same one that GitLab Runner would make on this
host (from the machine id, hashed), or chance where there is no machine id.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pathlib
import re
import secrets
import string
import tempfile
from collections.abc import Sequence

import structlog

from fleet.gitlab.errors import SystemIdError

log = structlog.get_logger(__name__)

FILE_NAME = ".runner_system_id"
FORMAT = re.compile(r"[sr]_[0-9a-zA-Z]{12}")
MACHINE_IDS = (pathlib.Path("/etc/machine-id"), pathlib.Path("/var/lib/dbus/machine-id"))


def system_id(directory: pathlib.Path, machine_ids: Sequence[pathlib.Path] = MACHINE_IDS) -> str:
    """The id kept in `directory`, made and kept when there is none; raises `SystemIdError`, which names the file."""
    path = directory / FILE_NAME
    kept = _kept(path)
    if kept:
        return kept
    made = _made(machine_ids)
    try:
        return _keep(path, made)
    except OSError as exc:
        if made.startswith("s_"):  # it comes out the same next time, so a read-only directory does no harm
            log.info("system_id_not_kept", path=str(path), error=exc.strerror)
            return made
        raise SystemIdError(
            f"{path} cannot be written ({exc.strerror}), and without it GitLab would see a new manager at each start:"
            " make the directory writable, or write an id such as r_ and 12 letters or digits into the file"
        ) from exc


def _kept(path: pathlib.Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise SystemIdError(f"{path} cannot be read ({exc}): check its permissions and content") from exc
    if text and not FORMAT.fullmatch(text):
        raise SystemIdError(
            f"{path} holds no system id (s_ or r_ and 12 letters or digits): restore it, or delete it to get a new one"
        )
    return text


def _made(machine_ids: Sequence[pathlib.Path]) -> str:
    for path in machine_ids:
        with contextlib.suppress(OSError):
            machine_id = path.read_text(encoding="ascii", errors="replace").strip()
            if machine_id:
                return "s_" + hmac.new(machine_id.encode(), b"gitlab-runner", hashlib.sha256).hexdigest()[:12]
    letters = string.ascii_letters + string.digits
    return "r_" + "".join(secrets.choice(letters) for _ in range(12))


def _keep(path: pathlib.Path, made: str) -> str:
    """Put the whole file there at once; of two that start together the first one's id counts for both."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=FILE_NAME)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    return _kept(path) or made
