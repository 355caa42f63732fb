"""Opening the database: one URL, its driver's settings, and its schema brought up to date."""

from __future__ import annotations

import pathlib
from typing import Any

import alembic.command
import alembic.config
import alembic.runtime.migration
import alembic.script
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from fleet.sdk import FleetError

PACKAGED = pathlib.Path(__file__).with_name("migrations")
CHECKOUT = pathlib.Path(__file__).resolve().parents[2] / "migrations"


class StoreError(FleetError):
    """The store cannot do what was asked."""

    slug = "store"


class StoreUnavailable(StoreError):
    """The database does not answer or cannot write just now; trying again later may help."""

    slug = "store_unavailable"


class StoreTooNew(StoreError):
    """The database was written by a newer fleet."""

    slug = "store_too_new"


def open_engine(url: str) -> sa.Engine:
    """Make an engine for `sqlite:///path` or `postgresql://...`; connects to nothing yet."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as exc:
        raise StoreError(
            "[fleet] database is not a URL; write sqlite:////var/lib/fleet/fleet.db or postgresql://user@host/name"
        ) from exc
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=8,
            max_overflow=2,
            pool_pre_ping=False,
            pool_recycle=1800,
            connect_args={"connect_timeout": 10, "application_name": "fleetctl"},
        )
    raise StoreError(
        f"[fleet] database names {parsed.get_backend_name()}; fleet keeps its state in sqlite or postgresql"
    )


def _sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError("[fleet] database must be a file: what is only in memory would not survive the manager")
    pathlib.Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, connect_args={"timeout": 30, "check_same_thread": False}, pool_size=8, max_overflow=8
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        # SQLAlchemy says BEGIN itself (below); sqlite3's own implicit BEGIN would be too late for savepoints
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def _alembic(connection: sa.Connection | None = None) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(PACKAGED if PACKAGED.is_dir() else CHECKOUT))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this program needs."""
    found = alembic.script.ScriptDirectory.from_config(_alembic()).get_current_head()
    assert found is not None
    return found


def current(engine: sa.Engine) -> str | None:
    """The database's revision; None when it is empty."""
    try:
        with engine.connect() as connection:
            return alembic.runtime.migration.MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as exc:
        raise unavailable(engine, exc) from exc


def upgrade(engine: sa.Engine) -> bool:
    """Bring the schema to `head`; True when something was done.

    Raises:
        StoreTooNew: the database knows a revision that this program does not.
        StoreUnavailable: it cannot be reached or written.
    """
    at = current(engine)
    known = {script.revision for script in alembic.script.ScriptDirectory.from_config(_alembic()).walk_revisions()}
    if at is not None and at not in known:
        raise StoreTooNew(
            f"the database is at revision {at}, which this fleetctl does not know: it was written by a newer one; "
            "install that version again, or restore the backup made before the upgrade"
        )
    if at == head():
        return False
    try:
        with engine.connect() as connection:
            _upgrade(connection)
    except DBAPIError as exc:
        raise unavailable(engine, exc) from exc
    return True


def _upgrade(connection: sa.Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    raw: Any = connection.connection.driver_connection
    if sqlite:
        # a table rebuilt with foreign keys on would delete what refers to it: off, before the transaction starts
        raw.execute("PRAGMA foreign_keys=OFF")
    with connection.begin():
        if not sqlite:
            # two managers that start together: one upgrades, the other waits and finds nothing to do
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4711001)")
        alembic.command.upgrade(_alembic(connection), "head")
    if sqlite:
        raw.execute("PRAGMA foreign_keys=ON")


def unavailable(engine: sa.Engine, exc: DBAPIError) -> StoreUnavailable:
    """Say for people which database failed and how, without its password."""
    where = engine.url.render_as_string(hide_password=True)
    first = str(exc.orig).strip().splitlines()
    return StoreUnavailable(f"the database {where} cannot be used: {first[0] if first else exc}")
