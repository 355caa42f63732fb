"""Housekeeping: the mark is noted beside the database, and what is over goes, with the files that nobody needs."""

from __future__ import annotations

import pathlib
from datetime import timedelta

from structlog.testing import capture_logs

from fleet.runtime.upkeep import mark_path
from fleet.store import restore
from fleet.store.tables import journal
from tests.contract.store import world


def test_the_mark_follows_the_journal(manager):
    first = manager.upkeep.mark()
    path = mark_path(manager.settings.fleet.state_dir)
    assert restore.noted(path) == first
    manager.store.write(lambda tx: tx.journal("store", "x", "noted", "a line more"))
    second = manager.upkeep.mark()
    assert second.seq == first.seq + 1
    assert restore.noted(path) == second


def test_a_mark_that_cannot_be_noted_is_told_and_stops_nothing(manager):
    path = mark_path(manager.settings.fleet.state_dir)
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "in the way").touch()
    with capture_logs() as lines:
        manager.upkeep.mark()
    assert [line["event"] for line in lines] == ["mark_not_noted"]


def test_spool_files_of_jobs_that_are_not_open_are_removed_and_others_are_kept(manager):
    spool = pathlib.Path(manager.settings.fleet.spool_dir)

    def make(tx) -> str:
        world.add_pool(tx)
        world.add_runner(tx)
        return world.add_job(tx)

    job = manager.store.write(make)
    (spool / f"{job}.trace").write_bytes(b"open")
    (spool / "forgotten.trace").write_bytes(b"over")
    manager.upkeep.prune()
    assert sorted(path.name for path in spool.iterdir()) == [f"{job}.trace"]


def test_lines_older_than_their_retention_go_and_the_newest_stays(manager):
    for number in range(50):
        manager.store.write(lambda tx, number=number: tx.journal("store", "x", "noted", f"line {number}"))
    manager.upkeep.settings = manager.settings.fleet.model_copy(update={"journal_retention": timedelta(microseconds=1)})
    manager.upkeep.prune()
    left = manager.store.read(lambda tx: tx.sql.execute(journal.select()).all())
    assert [line.reason for line in left] == ["line 49"]
