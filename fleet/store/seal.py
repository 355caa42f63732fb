"""Encryption at rest: what is secret is sealed before it becomes a row.

The key is a Fernet key from `FLEET_SECRET_KEY` or a 0600 file; whoever has only the database can read no token, job
variable or private key.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
import tempfile
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from fleet.sdk import FleetError


class SealError(FleetError):
    """The secret key is missing, unreadable, open to others, or not the one the store was written with."""

    slug = "seal"


class Seal:
    """Seals and opens bytes with one key."""

    def __init__(self, key: str) -> None:
        try:
            self._fernet = Fernet(key.strip().encode())
        except ValueError as exc:
            raise SealError(
                "the secret key is not a Fernet key (44 characters of URL-safe base64); "
                "make one with `fleetctl db new-key`"
            ) from exc

    def close(self, data: bytes) -> bytes:
        """Seal `data`."""
        return self._fernet.encrypt(data)

    def open(self, sealed: bytes) -> bytes:
        """Open what `close` sealed."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as exc:
            raise SealError(
                "the store holds secrets sealed with another key; start with the secret key that wrote it "
                "([fleet] secret_key_file or FLEET_SECRET_KEY)"
            ) from exc

    def close_json(self, value: Any) -> bytes:
        """Seal a JSON value."""
        return self.close(json.dumps(value, separators=(",", ":")).encode())

    def open_json(self, sealed: bytes) -> Any:
        """Open a JSON value."""
        return json.loads(self.open(sealed))


def key_from_file(path: pathlib.Path, *, create: bool) -> str:
    """Read the key file; make it with mode 0600 when it is absent and `create` is set."""
    try:
        if create and not path.exists():
            _make_key_file(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise SealError(f"{path} may be read by others (mode {mode:o}); run: chmod 600 {path}")
        return path.read_bytes().decode("ascii", "replace")
    except OSError as exc:
        raise SealError(
            f"the secret key file {path} cannot be used: {exc.strerror}; "
            "set [fleet] secret_key_file or FLEET_SECRET_KEY"
        ) from exc


def _make_key_file(path: pathlib.Path) -> None:
    """Whole or not at all, and never in the place of another: a store whose key is lost is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was quicker: its key counts
            os.link(fresh, path)
    finally:
        os.unlink(fresh)
