"""The schema's history: Alembic, its migrations, and running them."""

from __future__ import annotations

import pathlib
from typing import Any

import alembic.command
import alembic.config
import alembic.script
import sqlalchemy as sa

PACKAGED = pathlib.Path(__file__).with_name("migrations")
CHECKOUT = pathlib.Path(__file__).resolve().parents[2] / "migrations"


def _alembic(connection: sa.Connection | None = None) -> alembic.config.Config:
    config = alembic.config.Config()
    place = PACKAGED if PACKAGED.is_dir() else CHECKOUT
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> alembic.script.ScriptDirectory:
    return alembic.script.ScriptDirectory.from_config(_alembic())


def newest() -> str:
    """The revision of the newest migration."""
    found = _scripts().get_current_head()
    assert found is not None
    return found


def revisions() -> set[str]:
    """Every revision that this program knows."""
    return {script.revision for script in _scripts().walk_revisions()}


def upgrade(connection: sa.Connection) -> None:
    """Run every migration that the database lacks."""
    sqlite = connection.dialect.name == "sqlite"
    raw: Any = connection.connection.driver_connection
    if sqlite:
        # a table rebuilt with foreign keys on would delete what refers to it: off, before the transaction starts
        raw.execute("PRAGMA foreign_keys=OFF")
    try:
        # two managers that start together: one upgrades, the other waits (here, or at BEGIN) and finds nothing to do
        with connection.begin():
            if not sqlite:
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4711001)")
            alembic.command.upgrade(_alembic(connection), "head")
    finally:
        if sqlite:
            raw.execute("PRAGMA foreign_keys=ON")
