"""Every piece of work is whole, durable and on its own, however many are written together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from fleet.store import journal, pools
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreConflict, StoreUnavailable
from fleet.store.tables import cool_downs
from tests.contract.store.world import NOON, HandClock, add_pool, at_once


class Refused(Exception):
    """A piece of work changes its mind."""


def note(tx: Tx, scope: str) -> None:
    tx.sql.execute(sa.insert(cool_downs).values(scope=scope, until=tx.now, failures=1, reason="r"))
    tx.journal("placement", scope, "noted", "a test says so")


def scopes(tx: Tx) -> set[str]:
    return {row.scope for row in tx.sql.execute(sa.select(cool_downs.c.scope))}


def test_a_piece_that_raises_leaves_neither_its_row_nor_its_journal_line(store: Store) -> None:
    def work(tx: Tx) -> None:
        note(tx, "half")
        raise Refused

    with pytest.raises(Refused):
        store.write(work)
    assert store.read(scopes) == set()
    assert store.read(lambda tx: journal.story_of(tx.sql, "half")) == []


def test_pieces_written_together_stand_or_fall_alone(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def holds_up_the_others(tx: Tx) -> None:
        note(tx, "first")
        begun.set()
        assert go_on.wait(30)

    def fails(tx: Tx) -> None:
        note(tx, "failed")
        raise Refused

    with ThreadPoolExecutor(40) as threads:
        first = threads.submit(store.write, holds_up_the_others)
        assert begun.wait(30)
        good = [threads.submit(store.write, lambda tx, n=n: note(tx, f"good-{n}")) for n in range(20)]
        bad = [threads.submit(store.write, fails) for _ in range(10)]
        go_on.set()
        first.result(60)
        assert all(future.result(60) is None for future in good)
        assert all(isinstance(future.exception(60), Refused) for future in bad)
    assert store.read(scopes) == {"first", *(f"good-{n}" for n in range(20))}


def test_a_mistake_in_the_sql_of_one_piece_is_its_own(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def holds_up_the_others(tx: Tx) -> None:
        note(tx, "first")
        begun.set()
        assert go_on.wait(30)

    def wrong(tx: Tx) -> None:
        note(tx, "wrong")
        tx.sql.exec_driver_sql("SELECT no_such_column FROM cool_downs")

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(store.write, holds_up_the_others)
        assert begun.wait(30)
        mistaken = threads.submit(store.write, wrong)
        good = threads.submit(store.write, lambda tx: note(tx, "good"))
        go_on.set()
        assert good.result(30) is None
        assert first.result(30) is None
        assert "no_such_column" in str(mistaken.exception(30))
    assert store.read(scopes) == {"first", "good"}


def test_many_threads_lose_no_write(store: Store) -> None:
    def count_up(tx: Tx) -> None:
        row = tx.sql.execute(sa.select(cool_downs).where(cool_downs.c.scope == "n").with_for_update()).one()
        tx.sql.execute(sa.update(cool_downs).values(failures=row.failures + 1))

    store.write(lambda tx: note(tx, "n"))
    done = at_once([lambda: [store.write(count_up) for _ in range(25)]] * 16)
    assert not [each for each in done if isinstance(each, Exception)]
    assert store.read(lambda tx: tx.sql.execute(sa.select(cool_downs.c.failures)).scalar_one()) == 1 + 16 * 25


def test_what_was_written_is_there_after_the_store_was_closed_and_opened_again(
    store: Store, open_store: Callable[[], Store]
) -> None:
    store.write(add_pool)
    store.close()
    assert [row.pool for row in open_store().read(pools.all_pools)] == ["linux"]


def test_a_read_sees_one_moment(store: Store) -> None:
    store.write(lambda tx: note(tx, "before"))

    def read_twice(tx: Tx) -> tuple[set[str], set[str]]:
        first = scopes(tx)
        store.write(lambda other: note(other, "between"))
        return first, scopes(tx)

    assert store.read(read_twice) == ({"before"}, {"before"})
    assert store.read(scopes) == {"before", "between"}


def test_a_manager_on_its_own_goes_by_its_own_clock(store: Store, clock: HandClock) -> None:
    clock.advance(3600)
    seen = store.write(lambda tx: tx.now)
    if store.shared:
        assert seen != clock.instant, "managers that share a database go by the database's clock"
    else:
        assert seen == clock.instant


def test_the_clock_of_the_store_is_the_same_for_all_who_share_it_and_aware(
    managers: tuple[Store, ...],
) -> None:
    instants = [store.write(lambda tx: tx.now) for store in managers]
    assert all(instant.utcoffset() is not None for instant in instants)
    assert instants == sorted(instants)


def test_an_instant_comes_back_as_it_was_written(store: Store) -> None:
    exact = NOON.replace(microsecond=123456)
    store.write(lambda tx: tx.sql.execute(sa.insert(cool_downs).values(scope="s", until=exact, failures=1, reason="r")))
    assert store.read(lambda tx: tx.sql.execute(sa.select(cool_downs.c.until)).scalar_one()) == exact


def test_the_journal_line_stands_with_the_change_it_tells_of(store: Store) -> None:
    store.write(lambda tx: note(tx, "a"))
    (line,) = store.read(lambda tx: journal.story_of(tx.sql, "a"))
    assert (line.kind, line.stimulus, line.reason) == ("placement", "noted", "a test says so")
    assert store.read(lambda tx: journal.high_water(tx.sql)) == line.seq


def test_a_reason_that_no_database_can_hold_is_written_as_well_as_it_can_be(store: Store) -> None:
    store.write(lambda tx: tx.journal("instance", "i", "broken", "ssh said \0\udcff" + "x" * 100_000))
    (line,) = store.read(lambda tx: journal.story_of(tx.sql, "i"))
    assert line.reason.startswith("ssh said ")
    assert "\0" not in line.reason
    assert len(line.reason) <= journal.LONGEST


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.write(scopes)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.read(scopes)


def test_a_write_inside_a_write_is_a_mistake_that_is_told_at_once(store: Store) -> None:
    with pytest.raises(RuntimeError, match="inside a write"):
        store.write(lambda tx: store.write(scopes))
    store.write(lambda tx: note(tx, "after"))


def test_what_a_read_changes_is_not_kept(store: Store) -> None:
    store.read(lambda tx: note(tx, "by a reader"))
    assert store.read(scopes) == set()


def test_a_row_that_may_be_there_once_only_is_refused_in_our_own_words(store: Store) -> None:
    store.write(lambda tx: note(tx, "once"))
    with pytest.raises(StoreConflict, match="refused a row"):
        store.write(lambda tx: note(tx, "once"))


def test_closing_while_others_write_leaves_no_one_waiting(open_store: Callable[[], Store]) -> None:
    store = open_store()

    def write_until_closed() -> int:
        for number in range(10_000):
            try:
                store.write(scopes)
            except StoreUnavailable:
                return number
        return -1

    def close() -> int:
        store.write(scopes)
        store.close()
        return 0

    done = at_once([write_until_closed] * 8 + [close])
    assert not [each for each in done if isinstance(each, Exception)]


def test_a_piece_that_breaks_the_transaction_itself_does_not_end_the_writer(store: Store) -> None:
    def misbehaves(tx: Tx) -> None:
        tx.sql.get_transaction().rollback()  # type: ignore[union-attr]

    with pytest.raises(Exception, match=r"."):
        store.write(misbehaves)
    store.write(lambda tx: note(tx, "after"))
    assert store.read(scopes) == {"after"}
