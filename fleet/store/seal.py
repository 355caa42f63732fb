"""Encryption at rest: what is secret is sealed before it becomes a row.

The key is a Fernet key from `FLEET_SECRET_KEY` or a 0600 file; whoever has only the database can read no token, job
variable or private key.
"""

from __future__ import annotations

import json
import os
import pathlib
import stat
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
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise SealError(f"{path} may be read by others (mode {mode:o}); run: chmod 600 {path}")
        return path.read_text(encoding="ascii")
    except OSError as exc:
        raise SealError(
            f"the secret key file {path} cannot be used: {exc.strerror}; "
            "set [fleet] secret_key_file or FLEET_SECRET_KEY"
        ) from exc
