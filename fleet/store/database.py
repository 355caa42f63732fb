"""The store: every read and every write of the manager goes through here, and nowhere else is SQL run.

On SQLite one thread writes. Work handed to `write` while it is busy is done together in one transaction, each piece
in a savepoint of its own, so that a commit to disk is paid once for many (group commit). On PostgreSQL each piece is a
transaction of its own on the caller's thread, tried again when the server asks for it. Either way `write` returns only
when the work is durable, and a piece that raises leaves nothing behind. Work may be run more than once, and only its
last run counts: it keeps nothing outside the transaction but what it returns.

No provider, SSH or HTTP call belongs inside `read` or `write`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fleet.store.engine import StoreUnavailable, open_engine, sqlite_code, translated, upgrade
from fleet.store.journal import JournalLine, write_lines
from fleet.store.seal import Seal

T = TypeVar("T")
Clock = Callable[[], datetime]
BATCH = 64
# PostgreSQL asks to run the transaction again (serialization failure, deadlock), or another manager has just made a row
# that may be there once only (unique violation): run again, the work sees that row
RETRIED = {"40001", "40P01", "23505"}
ATTEMPTS = 5
CLOSING_S = 10.0  # how long `close` waits for work that is under way
# a mistake of one statement, after which SQLite's transaction stands: error, too big, constraint, mismatch, range
OWN_FAULTS = {None, 1, 18, 19, 20, 25}


class Tx:
    """One piece of work inside a transaction.

    Attributes:
        sql: runs statements.
        now: the instant of this work by the store's clock; the same for all of it.
        seal: encrypts what is secret.
    """

    __slots__ = ("_lines", "now", "seal", "sql")

    def __init__(self, sql: sa.Connection, now: datetime, seal: Seal) -> None:
        self.sql = sql
        self.now = now
        self.seal = seal
        self._lines: list[JournalLine] = []

    def journal(self, kind: str, object_id: str, stimulus: str, reason: str, **more: str | None) -> None:
        """Note why something changed; written with the change or not at all."""
        self._lines.append(
            JournalLine(at=self.now, kind=kind, object_id=object_id, stimulus=stimulus, reason=reason, more=more)
        )

    def finish(self) -> None:
        """Write what was noted."""
        write_lines(self.sql, self._lines)


class Store:
    """An open database. Thread-safe."""

    def __init__(self, url: str, seal: Seal, clock: Clock) -> None:
        self.engine = open_engine(url)
        self.seal = seal
        self._clock = clock
        self._sqlite = self.engine.dialect.name == "sqlite"
        self._readers = (
            self.engine if self._sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._work: queue.SimpleQueue[tuple[Callable[[Tx], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._closed = False
        self._door = threading.Condition()  # counts who is inside; nobody comes in once the store is closed
        self._busy = 0
        self._inside = threading.local()

    @property
    def shared(self) -> bool:
        """Whether several managers may use it at once."""
        return not self._sqlite

    def open(self) -> bool:
        """Bring the schema up to date and start; True when the schema was changed."""
        try:
            changed = upgrade(self.engine)
        except BaseException:
            self.engine.dispose()
            raise
        if self._sqlite and self._writer is None:
            self._writer = threading.Thread(target=self._write_for_all, name="store-writer", daemon=True)
            self._writer.start()
        return changed

    def close(self) -> None:
        """Finish what was handed in, and let go of the database."""
        with self._door:
            self._closed = True
            self._door.wait_for(lambda: self._busy == 0, CLOSING_S)
        if self._writer is not None:
            self._work.put(None)
            self._writer.join()
            self._writer = None
        self.engine.dispose()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._door:
            if self._closed or (self._sqlite and self._writer is None):
                raise StoreUnavailable("the store is closed")
            self._busy += 1
        try:
            yield
        except SQLAlchemyError as exc:
            raise translated(self.engine, exc) from exc
        finally:
            with self._door:
                self._busy -= 1
                self._door.notify_all()

    def clock(self) -> datetime:
        """The manager's own time, for when the store's cannot be had."""
        return self._clock()

    def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on one consistent snapshot; what it changes is not kept."""
        with self._at_work(), self._transaction(self._readers, keep=False) as tx:
            return work(tx)

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run `work` in a transaction; on return it is durable.

        Raises:
            StoreUnavailable: the database cannot be reached or written. Nothing was changed, unless PostgreSQL was
                lost while it answered the commit: so whoever tries again looks at the rows first.
            StoreConflict: nothing was changed; a row that must be the only one is there already.
        """
        if getattr(self._inside, "write", False):
            raise RuntimeError("a write inside a write would wait for itself; hand the outer Tx on")
        with self._at_work():
            if not self._sqlite:
                return self._write_alone(work)
            future: Future[T] = Future()
            self._work.put((work, future))
            return future.result()

    @contextlib.contextmanager
    def _transaction(self, engine: sa.Engine, *, keep: bool) -> Iterator[Tx]:
        """A transaction that is committed at the end of the block when it is to be kept, and else rolled back."""
        sql, transaction, now = self._begun(engine)
        with sql:
            yield Tx(sql, now, self.seal)
            if keep:
                transaction.commit()

    def _begun(self, engine: sa.Engine) -> tuple[sa.Connection, sa.RootTransaction, datetime]:
        """Begin, and ask for the time: a pooled connection that died meanwhile shows here, and nothing is lost yet.

        A ping before each transaction would notice as well, for one more round trip each.
        """
        last = False
        while True:
            sql = engine.connect()
            try:
                return sql, sql.begin(), self._now(sql)
            except DBAPIError as exc:
                sql.close()
                if last or not exc.connection_invalidated:
                    raise
                last = True
            except BaseException:
                sql.close()
                raise

    def _now(self, sql: sa.Connection) -> datetime:
        if self._sqlite:
            return self._clock()
        now: datetime = sql.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return now

    def _write_alone(self, work: Callable[[Tx], T]) -> T:
        attempt = 1
        while True:
            try:
                with self._transaction(self.engine, keep=True) as tx:
                    return self._run(work, tx)
            except DBAPIError as exc:
                if getattr(exc.orig, "sqlstate", None) not in RETRIED or attempt == ATTEMPTS:
                    raise
                attempt += 1

    def _run(self, work: Callable[[Tx], T], tx: Tx) -> T:
        self._inside.write = True
        try:
            result = work(tx)
            tx.finish()
        finally:
            self._inside.write = False
        return result

    def _write_for_all(self) -> None:
        last = False
        while not last:
            first = self._work.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < BATCH:
                try:
                    item = self._work.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    last = True
                    break
                batch.append(item)
            self._commit(batch)

    def _commit(self, batch: list[tuple[Callable[[Tx], Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self.engine.connect().execution_options(sqlite_begin="IMMEDIATE") as sql, sql.begin():
                for work, future in batch:
                    done.append((future, *self._piece(sql, work)))
        except Exception as exc:  # noqa: BLE001  the one writer outlives whatever went wrong; those who wait are told
            for _, future in batch:
                future.set_exception(translated(self.engine, exc))
            return
        for future, result, error in done:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _piece(self, sql: sa.Connection, work: Callable[[Tx], Any]) -> tuple[Any, BaseException | None]:
        sql.exec_driver_sql("SAVEPOINT piece")
        try:
            result = self._run(work, Tx(sql, self._clock(), self.seal))
        except BaseException as exc:
            if isinstance(exc, DBAPIError) and sqlite_code(exc) not in OWN_FAULTS:
                raise  # the disk or the file: nothing in this transaction can be trusted
            sql.exec_driver_sql("ROLLBACK TO piece")
            sql.exec_driver_sql("RELEASE piece")
            return None, translated(self.engine, exc) if isinstance(exc, SQLAlchemyError) else exc
        sql.exec_driver_sql("RELEASE piece")
        return result, None
