"""The store: every read and every write of the manager goes through here, and nowhere else is SQL run.

On SQLite one thread writes. Work handed to `write` while it is busy is done together in one transaction, each piece
in a savepoint of its own, so that a commit to disk is paid once for many (group commit). On PostgreSQL each piece is a
transaction of its own on the caller's thread, tried again when the server asks for it. Either way `write` returns only
when the work is durable, and a piece that raises leaves nothing behind.

No provider, SSH or HTTP call belongs inside `read` or `write`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from fleet.store.engine import StoreUnavailable, open_engine, unavailable, upgrade
from fleet.store.journal import JournalLine, write_lines
from fleet.store.seal import Seal

T = TypeVar("T")
Clock = Callable[[], datetime]
BATCH = 64
RETRIED = {"40001", "40P01"}  # serialization failure, deadlock: PostgreSQL asks to run the transaction again


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

    @property
    def shared(self) -> bool:
        """Whether several managers may use it at once."""
        return not self._sqlite

    def open(self) -> bool:
        """Bring the schema up to date and start; True when the schema was changed."""
        changed = upgrade(self.engine)
        if self._sqlite and self._writer is None:
            self._writer = threading.Thread(target=self._write_for_all, name="store-writer", daemon=True)
            self._writer.start()
        return changed

    def close(self) -> None:
        """Finish what was handed in, and let go of the database."""
        self._closed = True
        if self._writer is not None:
            self._work.put(None)
            self._writer.join()
            self._writer = None
        self.engine.dispose()

    def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on one consistent snapshot."""
        try:
            with self._readers.begin() as sql:
                return work(Tx(sql, self._now(sql), self.seal))
        except (DBAPIError, sa.exc.TimeoutError) as exc:
            raise self._translated(exc) from exc

    def write(self, work: Callable[[Tx], T]) -> T:
        """Run `work` in a transaction; on return it is durable.

        Raises:
            StoreUnavailable: nothing was changed; the database cannot be reached or written.
        """
        if not self._sqlite:
            return self._write_alone(work)
        if self._closed or self._writer is None:
            raise StoreUnavailable("the store is closed")
        future: Future[T] = Future()
        self._work.put((work, future))
        return future.result()

    def _now(self, sql: sa.Connection) -> datetime:
        if self._sqlite:
            return self._clock()
        now: datetime = sql.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return now

    def _write_alone(self, work: Callable[[Tx], T]) -> T:
        for attempt in range(5):
            try:
                with self.engine.begin() as sql:
                    tx = Tx(sql, self._now(sql), self.seal)
                    result = work(tx)
                    tx.finish()
                return result
            except (DBAPIError, sa.exc.TimeoutError) as exc:
                state = getattr(getattr(exc, "orig", None), "sqlstate", None)
                if state not in RETRIED or attempt == 4:
                    raise self._translated(exc) from exc
        raise AssertionError("unreachable")

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
        except (DBAPIError, sa.exc.TimeoutError) as exc:
            failure = self._translated(exc)
            for _, future in batch:
                future.set_exception(failure)
            return
        for future, result, error in done:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _piece(self, sql: sa.Connection, work: Callable[[Tx], Any]) -> tuple[Any, BaseException | None]:
        sql.exec_driver_sql("SAVEPOINT piece")
        try:
            tx = Tx(sql, self._clock(), self.seal)
            result = work(tx)
            tx.finish()
        except OperationalError:
            raise  # the disk or the file: nothing in this transaction can be trusted
        except BaseException as exc:  # noqa: BLE001  whatever it is, it belongs to the caller that waits for it
            sql.exec_driver_sql("ROLLBACK TO piece")
            sql.exec_driver_sql("RELEASE piece")
            return None, exc
        sql.exec_driver_sql("RELEASE piece")
        return result, None

    def _translated(self, exc: Exception) -> Exception:
        if isinstance(exc, (OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError)):
            if isinstance(exc, DBAPIError):
                return unavailable(self.engine, exc)
            return StoreUnavailable(f"no free connection to the database within its time: {exc}")
        return exc
