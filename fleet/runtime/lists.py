"""Which page of a list is wanted, and the one list that is read here: the journal's; the others are the store's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fleet.runtime.contract import MOST, USUAL
from fleet.sdk import FleetError
from fleet.store.database import Tx
from fleet.store.listings import instant
from fleet.store.tables import journal


class BadQuery(FleetError):
    """A page was asked for in a way that has no meaning."""

    slug = "bad_query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which page is wanted.

    Attributes:
        after: `next` of the page before.
        wanted: what its rows must have, e.g. `pool` or `state`.
    """

    limit: int = USUAL
    after: str = ""
    wanted: Mapping[str, str] | None = None

    def one_of(self, name: str) -> str | None:
        """The value that rows must have; None when any will do."""
        return None if self.wanted is None else self.wanted.get(name)

    @property
    def bound(self) -> int:
        """How many rows a page may have."""
        return max(1, min(self.limit, MOST))


def journal_page(tx: Tx, given: Query) -> dict[str, Any]:
    """Lines of the journal, the newest first."""
    query = sa.select(journal)
    if given.after:
        if not given.after.isdecimal():
            raise BadQuery(f"after={given.after} is no line number: use `next` of the page before")
        query = query.where(journal.c.seq < int(given.after))
    for name, column in (("kind", journal.c.kind), ("pool", journal.c.pool)):
        if (value := given.one_of(name)) is not None:
            query = query.where(column == value)
    if (about := given.one_of("about")) is not None:
        same = (journal.c.object_id == about, journal.c.job_key == about, journal.c.instance_id == about)
        query = query.where(sa.or_(*same))
    found = tx.sql.execute(query.order_by(journal.c.seq.desc()).limit(given.bound + 1)).all()
    lines = [_line(row) for row in found[: given.bound]]
    return {"items": lines, "next": str(lines[-1]["seq"]) if len(found) > given.bound else None}


def _line(row: Any) -> dict[str, Any]:
    return {**row._mapping, "at": instant(row.at)}
