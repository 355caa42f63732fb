"""A database brought back from a backup is noticed, and nothing is swept until a person confirms it (law 6)."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from fleet.store import managers, restore
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.restore import Mark, newest_mark, note, noted, stop_sweeping_if_restored, was_restored
from fleet.store.retention import prune
from tests.contract.store.world import NOON, HandClock, add_pool, fresh
from tests.postgres import Databases


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state" / "seen.json"


@pytest.fixture
def store(store: Store) -> Store:
    store.write(lambda tx: managers.store_identity(tx, "store-1"))
    return store


def live(store: Store, clock: HandClock) -> None:
    """Time passes, and something happens."""
    clock.advance(1)
    store.write(lambda tx: add_pool(tx, fresh("pool")))


def remember(store: Store, path: pathlib.Path) -> None:
    note(path, store.read(newest_mark))


def verdict(store: Store, path: pathlib.Path) -> str | None:
    return store.read(lambda tx: was_restored(path, tx))


@pytest.fixture
def backup(
    store_url: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest, open_store: Callable[[], Store]
) -> Callable[[Store], Callable[[Store], Store]]:
    """Backs the closed database up; what it returns puts the backup in the place of the database."""

    def save_file(store: Store) -> Callable[[Store], Store]:
        store.close()
        shutil.copy(tmp_path / "fleet.db", tmp_path / "backup.db")

        def back(now: Store) -> Store:
            now.close()
            for each in tmp_path.glob("fleet.db*"):
                each.unlink()
            shutil.copy(tmp_path / "backup.db", tmp_path / "fleet.db")
            return open_store()

        return back

    def save_database(store: Store) -> Callable[[Store], Store]:
        databases: Databases = request.getfixturevalue("postgres_databases")
        name = str(sa.make_url(store_url).database)
        store.close()
        copy = databases.make(template=name)

        def back(now: Store) -> Store:
            now.close()
            databases.drop(name)
            databases.run("ALTER DATABASE {} RENAME TO {}", copy, name)
            return open_store()

        return back

    return save_file if store_url.startswith("sqlite") else save_database


def test_a_database_that_was_left_alone_is_not_taken_for_restored(
    store: Store, path: pathlib.Path, clock: HandClock
) -> None:
    assert verdict(store, path) is None, "nothing was ever noted"
    live(store, clock)
    remember(store, path)
    assert verdict(store, path) is None
    live(store, clock)
    assert verdict(store, path) is None, "it went on after the mark"


def test_law_6_a_restored_database_sweeps_nothing_until_a_person_confirms(
    store: Store,
    path: pathlib.Path,
    clock: HandClock,
    backup: Callable[[Store], Callable[[Store], Store]],
    open_store: Callable[[], Store],
) -> None:
    live(store, clock)
    back = backup(store)
    now = open_store()
    live(now, clock)
    remember(now, path)
    restored = back(now)
    why = restored.write(lambda tx: stop_sweeping_if_restored(path, tx))
    assert why is not None
    assert "it was restored from a backup" in why
    assert restored.read(managers.may_sweep) == (False, why)
    remember(restored, path)
    assert restored.write(lambda tx: stop_sweeping_if_restored(path, tx)) is None
    assert restored.read(managers.may_sweep)[0] is False, "the next start finds nothing new and still sweeps nothing"
    restored.write(lambda tx: managers.set_sweeping(tx, True, "a person confirmed"))
    assert restored.write(lambda tx: stop_sweeping_if_restored(path, tx)) is None
    assert restored.read(managers.may_sweep) == (True, None)


def test_law_6_a_restored_database_is_noticed_though_another_manager_went_on_with_it(
    store: Store,
    path: pathlib.Path,
    clock: HandClock,
    backup: Callable[[Store], Callable[[Store], Store]],
    open_store: Callable[[], Store],
) -> None:
    live(store, clock)
    back = backup(store)
    now = open_store()
    live(now, clock)
    live(now, clock)
    remember(now, path)
    restored = back(now)
    for _ in range(6):
        live(restored, clock)
        assert verdict(restored, path) is not None


def test_retention_is_not_mistaken_for_a_backup(store: Store, path: pathlib.Path, clock: HandClock) -> None:
    def forget(tx: Tx) -> None:
        then = tx.now.replace(year=tx.now.year + 1)
        prune(tx, journal_before=then, finished_before=then, gone_before=then)

    live(store, clock)
    remember(store, path)
    store.write(forget)
    assert verdict(store, path) is None, "the newest line is kept"
    live(store, clock)
    live(store, clock)
    store.write(forget)
    assert verdict(store, path) is None, "the noted line is gone with all that were older"


def test_a_line_that_is_skipped_while_older_ones_are_there_gives_a_restored_database_away(
    store: Store, path: pathlib.Path, clock: HandClock
) -> None:
    live(store, clock)
    mark = store.read(newest_mark)
    note(path, mark)
    for _ in range(3):
        live(store, clock)
    store.write(lambda tx: tx.sql.execute(sa.text("DELETE FROM journal WHERE seq = :seq"), {"seq": mark.seq}))
    assert "skips that line" in str(verdict(store, path))


def test_another_store_is_another_story(store: Store, path: pathlib.Path) -> None:
    note(path, Mark(store_id="store-2", seq=1_000_000, at=NOON))
    assert verdict(store, path) is None


def test_a_mark_that_cannot_be_read_counts_as_a_restored_database(store: Store, path: pathlib.Path) -> None:
    remember(store, path)
    path.write_text('{"seq": ')
    why = store.write(lambda tx: stop_sweeping_if_restored(path, tx))
    assert "cannot be read" in str(why)
    assert store.read(managers.may_sweep)[0] is False


def test_a_mark_comes_back_as_it_was_noted_and_leaves_no_other_file(path: pathlib.Path) -> None:
    assert noted(path) is None
    for seq in (1, 2):
        mark = Mark(store_id="s", seq=seq, at=NOON.replace(microsecond=1))
        note(path, mark)
        assert noted(path) == mark
    assert list(path.parent.iterdir()) == [path]


def test_a_mark_that_cannot_be_written_is_told_of_and_the_last_one_stays(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = Mark(store_id="s", seq=1, at=NOON)
    note(path, mark)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(restore.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device; let fleetctl"):
        note(path, Mark(store_id="s", seq=2, at=NOON))
    assert noted(path) == mark
    assert list(path.parent.iterdir()) == [path]
