"""A full disk, a read-only one, a file that is no database: told in plain words, and nothing is half written."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from fleet.store import journal
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreConflict, StoreDamaged, StoreError, StoreTooNew, StoreUnavailable
from fleet.store.tables import cool_downs
from fleet.store.tables import journal as journal_rows
from tests.contract.store.world import add_pool, at_once


def as_root(*command: str) -> None:
    """Mounting is for root; who is not root needs sudo without a password for these tests."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A disk of 4 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    as_root("mount", "-t", "tmpfs", "-o", f"size=4m,mode=0700,uid={os.geteuid()}", "tmpfs", str(at))
    try:
        yield at
    finally:
        as_root("umount", "--lazy", str(at))


def fill(disk: pathlib.Path, leave_bytes: int = 0) -> pathlib.Path:
    """Take all the room that there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    if leave_bytes:
        os.truncate(ballast, ballast.stat().st_size - leave_bytes)
    return ballast


def put(tx: Tx, scope: str) -> None:
    """A row and its journal line, together 40 kB."""
    tx.sql.execute(sa.insert(cool_downs).values(scope=scope, until=tx.now, failures=1, reason="r" * 36_000))
    tx.journal("placement", scope, "noted", "r" * 4000)


def put_until_full(store: Store) -> set[str]:
    """What was accepted before there was no more room."""
    accepted: set[str] = set()
    told = ""
    for number in range(1000):
        try:
            store.write(lambda tx, n=number: put(tx, f"s-{n}"))  # type: ignore[misc]
        except StoreUnavailable as exc:
            told = str(exc)
            break
        accepted.add(f"s-{number}")
    assert "free space on its disk" in told
    return accepted


def rows(store: Store) -> tuple[set[str], set[str]]:
    """The scopes that have a row, and those that have a line."""
    return store.read(
        lambda tx: (
            set(tx.sql.execute(sa.select(cool_downs.c.scope)).scalars()),
            set(tx.sql.execute(sa.select(journal_rows.c.object_id)).scalars()),
        )
    )


def test_a_full_disk_stops_writes_whole_and_they_go_on_when_there_is_room(
    small_disk: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    store = open_file(f"sqlite:///{small_disk}/fleet.db")
    ballast = fill(small_disk, leave_bytes=300_000)
    accepted = put_until_full(store)
    assert accepted, "there was room for some"
    assert rows(store) == (accepted, accepted), "reading goes on; what was refused left nothing"
    with pytest.raises(StoreUnavailable):
        store.write(lambda tx: put(tx, "still full"))
    ballast.unlink()
    store.write(lambda tx: put(tx, "room again"))
    assert rows(store) == (accepted | {"room again"},) * 2


def test_on_a_full_disk_each_of_many_writers_is_told_the_truth(
    small_disk: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    store = open_file(f"sqlite:///{small_disk}/fleet.db")
    ballast = fill(small_disk, leave_bytes=600_000)

    def write_some(number: int) -> set[str]:
        accepted = set()
        for turn in range(20):
            scope = f"{number}-{turn}"
            with contextlib.suppress(StoreUnavailable):
                store.write(lambda tx, scope=scope: put(tx, scope))  # type: ignore[misc]
                accepted.add(scope)
        return accepted

    done = at_once([lambda n=n: write_some(n) for n in range(8)])  # type: ignore[misc]
    accepted = {scope for each in done if isinstance(each, set) for scope in each}
    assert 0 < len(accepted) < 160
    assert rows(store) == (accepted, accepted)
    ballast.unlink()
    store.write(lambda tx: put(tx, "room again"))


def test_what_was_accepted_before_the_disk_was_full_is_there_after_a_restart(
    small_disk: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    store = open_file(f"sqlite:///{small_disk}/fleet.db")
    ballast = fill(small_disk, leave_bytes=300_000)
    accepted = put_until_full(store)
    store.close()
    ballast.unlink()
    assert rows(open_file(f"sqlite:///{small_disk}/fleet.db"))[0] == accepted


def test_a_disk_that_is_full_at_the_start_is_told_of(
    small_disk: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    ballast = fill(small_disk)
    with pytest.raises(StoreUnavailable, match=r"fleet\.db"):
        open_file(f"sqlite:///{small_disk}/fleet.db")
    ballast.unlink()
    open_file(f"sqlite:///{small_disk}/fleet.db").write(add_pool)


def test_a_disk_that_becomes_read_only_stops_writes_and_says_what_to_look_at(
    small_disk: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    store = open_file(f"sqlite:///{small_disk}/fleet.db")
    store.write(add_pool)
    store.close()
    as_root("mount", "-o", "remount,ro", str(small_disk))
    with pytest.raises(StoreUnavailable, match="mounted for writing"):
        open_file(f"sqlite:///{small_disk}/fleet.db").write(lambda tx: put(tx, "s"))
    as_root("mount", "-o", "remount,rw", str(small_disk))
    open_file(f"sqlite:///{small_disk}/fleet.db").write(lambda tx: put(tx, "s"))


def test_a_file_that_is_not_a_database_is_told_of_and_left_alone(
    tmp_path: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    path = tmp_path / "fleet.db"
    path.write_text("[runners]\n" * 1000)
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match=r"file is not a database; name another file in \[fleet\] database"):
        open_file(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_damaged_file_is_told_of(sqlite_url: str, tmp_path: pathlib.Path, open_file: Callable[[str], Store]) -> None:
    path = tmp_path / "fleet.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreDamaged, match="malformed; restore it from a backup"):
        open_file(sqlite_url)


def test_a_file_damaged_while_it_is_open_is_told_of_by_reads_and_writes(
    sqlite_url: str, tmp_path: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    store = open_file(sqlite_url)
    for number in range(50):
        store.write(lambda tx, n=number: put(tx, f"s-{n}"))  # type: ignore[misc]
    store.close()
    path = tmp_path / "fleet.db"
    store = open_file(sqlite_url)
    with path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 100 * 4096))
    with pytest.raises(StoreDamaged):
        store.read(lambda tx: tx.sql.execute(sa.select(cool_downs)).all())
    with pytest.raises(StoreDamaged):
        store.write(lambda tx: tx.sql.execute(sa.delete(cool_downs)))


def test_a_database_of_a_newer_fleet_is_refused_and_left_alone(
    store: Store, store_url: str, open_file: Callable[[str], Store]
) -> None:
    store.write(lambda tx: tx.sql.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreTooNew, match=r"revision 9999.*written by a newer one"):
        open_file(store_url)
    assert store.read(lambda tx: journal.high_water(tx.sql)) == 0


def test_a_database_that_another_program_holds_is_told_of(
    sqlite_url: str, tmp_path: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    store = open_file(sqlite_url)
    store.engine.dispose()
    sa.event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=50"))
    other = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another program holds it"):
            store.write(add_pool)
        assert store.read(lambda tx: tx.sql.execute(sa.select(cool_downs)).all()) == []
        other.execute("ROLLBACK")
    store.write(add_pool)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("not a url", "is not a URL"),
        ("postgresql://host:port/name", "is not a URL"),
        ("mysql://host/name", "names mysql"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
    ],
)
def test_a_database_setting_that_cannot_be_used_is_explained(
    url: str, said: str, open_file: Callable[[str], Store]
) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        open_file(url)
    assert "[fleet] database" in str(caught.value)


def test_a_place_where_no_file_can_be_made_is_explained(
    tmp_path: pathlib.Path, open_file: Callable[[str], Store]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="set \\[fleet\\] database to a place"):
        open_file(f"sqlite:///{tmp_path}/file/fleet.db")


def test_a_path_with_odd_characters_is_a_path(tmp_path: pathlib.Path, open_file: Callable[[str], Store]) -> None:
    store = open_file(f"sqlite:///{tmp_path}/a b 100% ü/fleet.db")
    store.write(add_pool)
    with pytest.raises(StoreConflict, match="refused a row"):
        store.write(
            lambda tx: [
                tx.sql.execute(sa.insert(cool_downs).values(scope="s", until=tx.now, failures=1, reason="r"))
                for _ in "12"
            ]
        )


def test_the_writer_ends_with_its_store(sqlite_url: str, open_file: Callable[[str], Store]) -> None:
    before = threading.active_count()
    store = open_file(sqlite_url)
    store.write(add_pool)
    store.close()
    assert threading.active_count() == before
