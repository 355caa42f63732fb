"""SSH key pairs the manager makes itself: one client key per pool, one host key per machine.

Both are ed25519 in OpenSSH's own formats, so that they can be written to `authorized_keys`, to a cloud's user data and
to `/etc/ssh` as they are. Keeping them (encrypted) is left to the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A private key (OpenSSH PEM text) and its public line without comment."""

    private: str = field(repr=False)
    public: str


def make_key_pair() -> KeyPair:
    """A new ed25519 key pair, for a client or for a host."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private=private.decode("ascii"), public=public.decode("ascii"))


def public_parts(line: str) -> tuple[str, bytes]:
    """Type and raw bytes of a public key line (`type base64 [comment]`).

    Raises:
        ValueError: it is no public key line.
    """
    words = line.split()
    if len(words) < 2:
        raise ValueError(f"not a public key line (type and base64): {line[:40]!r}")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error as exc:
        raise ValueError(f"not a public key line: {line[:40]!r}") from exc
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != words[0].encode():
        raise ValueError(f"the key's type and its content differ: {line[:40]!r}")
    return words[0], blob


def fingerprint(line: str) -> str:
    """A public key's fingerprint as ssh-keygen prints it: `type SHA256:...`."""
    kind, blob = public_parts(line)
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")
    return f"{kind} SHA256:{digest}"
