"""The journal tells the story of a job or an instance, oldest line first, and quickly however long it is."""

from __future__ import annotations

import sqlalchemy as sa

from fleet.store import journal
from fleet.store.database import Store, Tx
from fleet.store.tables import journal as journal_rows
from tests.contract.store.world import add_instance, add_job, add_pool, granted


def test_a_story_holds_what_happened_to_the_thing_itself_and_on_its_behalf(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        add_pool(tx)
        instance, job = add_instance(tx), add_job(tx)
        lease = granted(tx, instance, job)
        tx.journal("lease", lease, "granted", "it was free", job_key=job, instance_id=instance)
        add_job(tx)
        return instance, job

    instance, job = store.write(work)
    told = store.read(lambda tx: journal.story_of(tx.sql, job))
    assert [line.stimulus for line in told] == ["received", "acknowledged", "leased", "granted"]
    assert [line.seq for line in told] == sorted(line.seq for line in told)
    told = store.read(lambda tx: journal.story_of(tx.sql, instance))
    assert [line.stimulus for line in told] == ["wanted", "granted"]


def test_of_a_long_story_the_newest_lines_are_told(store: Store) -> None:
    store.write(lambda tx: [tx.journal("pool", "p", f"s{n}", "r") for n in range(30)])
    told = store.read(lambda tx: journal.story_of(tx.sql, "p", limit=3))
    assert [line.stimulus for line in told] == ["s27", "s28", "s29"]


def test_a_story_is_found_by_indexes_and_not_by_reading_the_whole_journal(store: Store) -> None:
    def fill(tx: Tx) -> None:
        line = {"at": tx.now, "kind": "job", "stimulus": "s", "reason": "r"}
        rows = [{**line, "object_id": f"o{n}", "job_key": f"j{n}", "instance_id": f"i{n}"} for n in range(20_000)]
        tx.sql.execute(sa.insert(journal_rows), rows)

    store.write(fill)

    def steps(tx: Tx) -> str:
        query = journal.story_query("o7", 200).compile(dialect=tx.sql.dialect, compile_kwargs={"literal_binds": True})
        if store.shared:
            tx.sql.exec_driver_sql("ANALYZE journal")
            return str(tx.sql.exec_driver_sql(f"EXPLAIN {query}").all())
        return str(tx.sql.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())

    plan = store.read(steps)
    assert "ix_journal_object_id" in plan
    assert "ix_journal_job_key" in plan
    assert "ix_journal_instance_id" in plan
    assert "Seq Scan" not in plan
    assert "SCAN journal" not in plan
