"""Statements that are built once and run often.

Building a statement costs SQLAlchemy more than running it costs SQLite, so what runs several times for each job is
made here once per shape and kept.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

from fleet.store.database import Tx

Key = sa.Column[Any]


@cache
def _select(columns: tuple[Key, ...], key: Key, lock: bool) -> sa.Select[Any]:
    query = sa.select(*columns).where(key == sa.bindparam("key_"))
    return query.with_for_update() if lock else query


@cache
def _update(key: Key, names: tuple[str, ...]) -> sa.Update:
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}", type_=key.table.c[name].type) for name in names}
    return sa.update(key.table).where(key == sa.bindparam("key_")).values(values)


@cache
def _insert(table: sa.Table) -> sa.Insert:
    return sa.insert(table)


@cache
def _delete(key: Key) -> sa.Delete:
    return sa.delete(key.table).where(key == sa.bindparam("key_"))


def find(tx: Tx, key: Key, value: str, *columns: Key, lock: bool = False) -> Any:
    """The row whose `key` is `value`, or None; `lock` holds it to the end of the transaction."""
    return tx.sql.execute(_select(columns, key, lock), {"key_": value}).one_or_none()


def change(tx: Tx, key: Key, value: str, **values: Any) -> int:
    """Change columns of the row whose `key` is `value`; how many rows that were."""
    given = {f"new_{name}": new for name, new in values.items()}
    return int(tx.sql.execute(_update(key, tuple(values)), {"key_": value, **given}).rowcount)


def add(tx: Tx, table: sa.Table, **values: Any) -> None:
    """Add a row."""
    tx.sql.execute(_insert(table), values)


def drop(tx: Tx, key: Key, value: str) -> int:
    """Delete the rows whose `key` is `value`; how many that were."""
    return int(tx.sql.execute(_delete(key), {"key_": value}).rowcount)
