"""The journal: one line for each change, with its reason. `fleetctl explain` is drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet.store.tables import journal

LONGEST = 4000  # characters of a reason; a machine may say more than anyone will read
COLUMNS = ("old", "new", "pool", "job_key", "instance_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """Why something changed.

    Attributes:
        kind: what it is: instance, lease, job, pool, runner, manager, request, store.
        object_id: which one.
        stimulus: what made it change, a short slug.
        reason: a sentence for people.
        more: old, new, pool, job_key, instance_id where they apply.
    """

    at: datetime
    kind: str
    object_id: str
    stimulus: str
    reason: str
    more: Mapping[str, str | None]
    seq: int = 0


_APPEND = sa.insert(journal)


def _writable(reason: str) -> str:
    """What comes from machines and providers may hold what no database takes: NUL, and halves of characters."""
    return reason[:LONGEST].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:LONGEST]


def write_lines(sql: sa.Connection, lines: Sequence[JournalLine]) -> None:
    """Append `lines`."""
    if not lines:
        return
    rows = [
        {
            "at": line.at,
            "kind": line.kind,
            "object_id": line.object_id,
            "stimulus": line.stimulus,
            "reason": _writable(line.reason),
            **{name: line.more.get(name) for name in COLUMNS},
        }
        for line in lines
    ]
    sql.execute(_APPEND, rows)


def story_query(object_id: str, limit: int) -> sa.Select[Any]:
    """The newest lines about an object, newest first; each way to name it has an index."""
    return (
        sa.select(journal)
        .where(
            sa.or_(
                journal.c.object_id == object_id,
                journal.c.job_key == object_id,
                journal.c.instance_id == object_id,
            )
        )
        .order_by(journal.c.seq.desc())
        .limit(limit)
    )


def story_of(sql: sa.Connection, object_id: str, limit: int = 200) -> list[JournalLine]:
    """The newest `limit` lines about an object, as itself or as the job or instance of another, oldest first."""
    return [
        JournalLine(
            at=row.at,
            kind=row.kind,
            object_id=row.object_id,
            stimulus=row.stimulus,
            reason=row.reason,
            more={name: row._mapping[name] for name in COLUMNS},
            seq=row.seq,
        )
        for row in reversed(sql.execute(story_query(object_id, limit)).all())
    ]


def high_water(sql: sa.Connection) -> int:
    """The newest line's number; one that was seen before and is gone now tells of a restored database."""
    return int(sql.execute(sa.select(sa.func.max(journal.c.seq))).scalar() or 0)
