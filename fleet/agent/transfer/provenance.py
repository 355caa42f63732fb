"""The SLSA provenance statement that RUNNER_GENERATE_ARTIFACTS_METADATA asks for: a file in the archive.

Rule: the manager wrote all but the subjects and the instants; here the files are hashed. The statement is made in
memory and put beside the files, and nothing is left in the project. GitLab's own `metadata.gz`, the list of what is in
an archive, is made by GitLab and never by a client.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time

from .. import system
from .tree import FILE, PIECE_BYTES, Entry

BEGAN_AT = system.wall_s()  # this module is read when the job starts


def statement(given: dict, item: dict, tree, entries: list) -> tuple:
    """The entry of the statement, and what opens its content."""
    ended_at = system.wall_s()
    run = given["predicate"]["runDetails"]
    times = {"startedOn": _instant(BEGAN_AT), "finishedOn": _instant(ended_at)}
    details = {**run, "metadata": {**run.get("metadata", {}), **times}}
    text = {
        "_type": given["_type"],
        "predicateType": given["predicateType"],
        "subject": [_subject(entry, reader) for entry, reader in tree.read(entries) if reader is not None],
        "predicate": {**given["predicate"], "runDetails": details},
    }
    data = json.dumps(text, indent=1).encode()
    name = os.path.basename((item.get("name") or "").rstrip("/")) or "artifacts"
    entry = Entry(name + "-metadata.json", FILE, size=len(data), mtime=float(int(ended_at)))
    return entry, lambda: io.BytesIO(data)


def _subject(entry: Entry, reader) -> dict:
    digest = hashlib.sha256()
    for piece in iter(lambda: reader.read(PIECE_BYTES), b""):
        digest.update(piece)
    return {"name": entry.path.encode("utf-8", "replace").decode(), "digest": {"sha256": digest.hexdigest()}}


def _instant(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
