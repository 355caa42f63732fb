"""The agent as one file: a zipapp built from the files of `fleet.agent`, the same bytes for the same files.

The agent is shipped as data and never imported here. It is stored uncompressed: the bytes then depend on nothing but
the files (not on a zlib's version), and Python starts faster from it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGE = "fleet_agent"
_MAIN = f"import sys\nfrom {PACKAGE}.__main__ import main\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An agent ready to be sent; `sha256` (hex) is its name on the machine."""

    data: bytes = field(repr=False)
    sha256: str


def build(files: Mapping[str, bytes]) -> Bundle:
    """The zipapp of these files (path inside the package -> content)."""
    entries = {f"{PACKAGE}/{path}": content for path, content in files.items()}
    entries["__main__.py"] = _MAIN.encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(entries):
            info = zipfile.ZipInfo(path, _EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # the same on every system
            archive.writestr(info, entries[path])
    data = out.getvalue()
    return Bundle(data=data, sha256=hashlib.sha256(data).hexdigest())


@functools.cache
def agent_bundle() -> Bundle:
    """The agent of this version of fleet; built once per process."""
    return build(dict(_sources(resources.files("fleet") / "agent", "")))


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield prefix + entry.name, entry.read_bytes()
