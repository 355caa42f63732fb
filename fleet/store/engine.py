"""Opening the database: one URL, its driver's settings, and its schema brought up to date."""

from __future__ import annotations

import os
import pathlib
import sqlite3
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from fleet.sdk import FleetError

HEAD = "0001"  # the newest file in migrations/versions; a test compares the two
# a peer that is gone without a word is noticed within half a minute
POSTGRES_CONNECT = {
    "connect_timeout": 10,
    "application_name": "fleetctl",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
PRAGMA_TRIES = 100
LIMITS = (("lock_timeout", "20s"), ("statement_timeout", "60s"), ("idle_in_transaction_session_timeout", "30s"))


class StoreError(FleetError):
    """The store cannot do what was asked."""

    slug = "store"


class StoreUnavailable(StoreError):
    """The database does not answer or cannot write just now; trying again later may help."""

    slug = "store_unavailable"


class StoreConflict(StoreError):
    """A row that must be the only one of its kind is there already, or one that it refers to is not."""

    slug = "store_conflict"


class StoreDamaged(StoreError):
    """The file is not a database, or not a whole one any more."""

    slug = "store_damaged"


class StoreTooNew(StoreError):
    """The database was written by a newer fleet."""

    slug = "store_too_new"


def open_engine(url: str) -> sa.Engine:
    """Make an engine for `sqlite:///path` or `postgresql://...`; connects to nothing yet."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as exc:
        raise StoreError(
            "[fleet] database is not a URL; write sqlite:////var/lib/fleet/fleet.db or postgresql://user@host/name"
        ) from exc
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",  # the locks are written for it, whatever the server's default is
            pool_size=8,
            max_overflow=2,
            pool_recycle=1800,
            hide_parameters=True,  # an error's text goes to logs; the values of rows do not
            connect_args=POSTGRES_CONNECT,
        )
        event.listen(engine, "connect", _limit_waiting)
        return engine
    raise StoreError(
        f"[fleet] database names {parsed.get_backend_name()}; fleet keeps its state in sqlite or postgresql"
    )


def _limit_waiting(connection: Any, _record: Any) -> None:
    # A manager that stands still inside a transaction must not hold its locks for ever: the server ends it, and the
    # others go on. Set here and not in the connection string, which is the person's and which some poolers refuse.
    with connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in LIMITS))
    connection.commit()


def _set(connection: Any, pragma: str) -> None:
    # the switch to WAL is refused at once while another process makes it, whatever the time-out says
    for _ in range(PRAGMA_TRIES):
        try:
            connection.execute(f"PRAGMA {pragma}")
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc):
                raise
            time.sleep(0.1)
        else:
            return
    connection.execute(f"PRAGMA {pragma}")


def _sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError("[fleet] database must be a file: what is only in memory would not survive the manager")
    engine = sa.create_engine(
        url.set(drivername="sqlite"),
        connect_args={"timeout": 30, "check_same_thread": False},
        pool_size=8,
        max_overflow=8,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        # SQLAlchemy says BEGIN itself (below); sqlite3's own implicit BEGIN would be too late for savepoints
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864"):
            _set(connection, pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def head() -> str:
    """The revision that this program needs."""
    return HEAD


def current(engine: sa.Engine) -> str | None:
    """The database's revision; None when it is empty."""
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return found
    except DBAPIError as exc:
        raise translated(engine, exc) from exc


def upgrade(engine: sa.Engine) -> bool:
    """Bring the schema to `head`; True when something was done.

    Raises:
        StoreTooNew: the database knows a revision that this program does not.
        StoreUnavailable: it cannot be reached or written.
        StoreDamaged: the file is no database.
    """
    if engine.dialect.name == "sqlite":
        _make_file(pathlib.Path(engine.url.database or ""))
    at = current(engine)
    if at == HEAD:
        return False
    # Alembic takes 12 MB of memory, which a manager on a schema that is up to date need not have
    from fleet.store import schema  # noqa: PLC0415  the reason stands above

    if at is not None and at not in schema.revisions():
        raise StoreTooNew(
            f"the database is at revision {at}, which this fleetctl does not know: it was written by a newer one; "
            "install that version again, or restore the backup made before the upgrade"
        )
    try:
        with engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection:
            schema.upgrade(connection)
    except DBAPIError as exc:
        raise translated(engine, exc) from exc
    return True


def _make_file(path: pathlib.Path) -> None:
    """Make the file, for nobody else to read: SQLite gives its journals the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as exc:
        raise StoreUnavailable(
            f"the database file {path} cannot be made: {exc.strerror}; "
            "set [fleet] database to a place that fleetctl may write"
        ) from exc


def sqlite_code(exc: DBAPIError) -> int | None:
    """SQLite's primary result code; None when the error is not SQLite's own."""
    code: int | None = getattr(exc.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


# what SQLite's codes mean for a person
ADVICE = {
    sqlite3.SQLITE_FULL: "nothing was changed; free space on its disk, and fleetctl goes on by itself",
    sqlite3.SQLITE_IOERR: "nothing was changed; look at the disk that it is on",
    sqlite3.SQLITE_READONLY: "let fleetctl's user write the file and its directory, on a disk mounted for writing",
    sqlite3.SQLITE_CANTOPEN: "let fleetctl's user write the file and its directory, on a disk mounted for writing",
    sqlite3.SQLITE_BUSY: "another program holds it: is a second fleetctl, or an sqlite3 shell, at work on it?",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup",
    sqlite3.SQLITE_NOTADB: "name another file in [fleet] database, or restore this one from a backup",
}
DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
READ_ONLY_SERVER = "25006"


def translated(engine: sa.Engine, exc: Exception) -> Exception:
    """What went wrong, in the store's own words and without the password; an error that is not SQL's is left alone."""
    where = engine.url.render_as_string(hide_password=True)
    if isinstance(exc, sa.exc.TimeoutError):
        return StoreUnavailable(f"the database {where} has no free connection; its work takes too long: {exc}")
    if not isinstance(exc, DBAPIError):
        return exc
    lines = str(exc.orig).strip().splitlines()
    advice = ADVICE.get(sqlite_code(exc) or 0)
    message = f"the database {where} cannot be used: {lines[0] if lines else exc}" + (f"; {advice}" if advice else "")
    if sqlite_code(exc) in DAMAGE:
        return StoreDamaged(message)
    if isinstance(exc, sa.exc.IntegrityError):
        return StoreConflict(f"the database {where} refused a row: {lines[0] if lines else exc}")
    lost = exc.connection_invalidated or getattr(exc.orig, "sqlstate", None) == READ_ONLY_SERVER
    if lost or isinstance(exc, (sa.exc.OperationalError, sa.exc.InterfaceError)) or advice:
        return StoreUnavailable(message)
    return StoreError(message)
