"""Noticing a database that was brought back from a backup: it knows less than this manager has already seen.

Such a database has forgotten machines made since; to it they look like orphans, and jobs may be running on them. So a
small file beside the database, on this manager's host, holds the newest journal line that the manager has seen (its
*mark*). At the start the mark is looked up: if the line is not there, or another stands under its number, the database
is not the one of then, and sweeping is switched off until a person confirms it (law 6).

The mark goes by line, not by number alone, so that a restored database that has been written to since is noticed too.
Retention deletes lines from the oldest on and never the newest (`fleet.store.retention`), so it is not mistaken for it.
When to note the mark, and what else to stop, is left to the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from fleet.store.database import Tx
from fleet.store.engine import StoreError
from fleet.store.managers import set_sweeping
from fleet.store.tables import journal, stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The newest journal line that was seen in a store; `seq` 0 when there was none."""

    store_id: str
    seq: int
    at: datetime


def newest_mark(tx: Tx) -> Mark:
    """The mark of this moment; the store has its identity already."""
    store_id: str = tx.sql.execute(sa.select(stores.c.store_id)).scalar_one()
    row = tx.sql.execute(sa.select(journal.c.seq, journal.c.at).order_by(journal.c.seq.desc()).limit(1)).one_or_none()
    return Mark(store_id=store_id, seq=0, at=tx.now) if row is None else Mark(store_id=store_id, seq=row.seq, at=row.at)


def note(path: pathlib.Path, mark: Mark) -> None:
    """Remember the mark, as a whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    fresh = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(fd, "w", encoding="ascii") as file:
            json.dump({"store_id": mark.store_id, "seq": mark.seq, "at": mark.at.isoformat()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as exc:
        if fresh is not None:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
        raise StoreError(
            f"{path}, which tells whether the database was restored, cannot be written: {exc.strerror}; "
            "let fleetctl's user write the directory, or free space on its disk"
        ) from exc


def noted(path: pathlib.Path) -> Mark | None:
    """The mark that was noted last; None when there was never one.

    Raises:
        StoreError: there is a file, and it is not a mark.
    """
    try:
        kept = json.loads(path.read_text(encoding="ascii"))
        return Mark(store_id=kept["store_id"], seq=int(kept["seq"]), at=datetime.fromisoformat(kept["at"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{path}, which tells whether the database was restored, cannot be read: {exc}") from exc


def was_restored(path: pathlib.Path, tx: Tx) -> str | None:
    """Why the database must have been restored since the mark was noted; None when all is as it was left.

    Another store than the noted one is none of this file's business: its machines carry another identity.
    """
    try:
        mark = noted(path)
    except StoreError as exc:
        return str(exc)  # whether it was is unknown: as careful as if it were
    if mark is None or mark.seq == 0:
        return None
    newest = newest_mark(tx)
    if newest.store_id != mark.store_id:
        return None
    seen = f"this manager has seen journal line {mark.seq} of {mark.at.isoformat(timespec='seconds')}"
    if newest.seq < mark.seq:
        return f"{seen}, and the database ends at line {newest.seq}: it was restored from a backup"
    row = tx.sql.execute(sa.select(journal.c.at).where(journal.c.seq == mark.seq)).one_or_none()
    if row is not None:
        return None if row.at == mark.at else f"{seen}, and another stands under that number: it was restored"
    oldest = tx.sql.execute(sa.select(sa.func.min(journal.c.seq))).scalar_one()
    return f"{seen}, and the database skips that line: it was restored" if oldest < mark.seq else None


def stop_sweeping_if_restored(path: pathlib.Path, tx: Tx) -> str | None:
    """Switch sweeping off when the database was restored; returns why. The caller notes a new mark afterwards."""
    why = was_restored(path, tx)
    if why is not None:
        set_sweeping(tx, False, why)
    return why
