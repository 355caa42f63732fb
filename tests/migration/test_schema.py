"""The schema that a database comes to by migrations is the one that the program is written for."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import alembic.autogenerate
import alembic.runtime.migration
import pytest
import sqlalchemy as sa

from fleet.store.engine import StoreError, current, head, open_engine, upgrade
from fleet.store.schema import newest
from fleet.store.tables import metadata

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STEPS = sorted((ROOT / "migrations" / "versions").glob("*.py"))


@pytest.fixture
def empty(empty_store_url: str) -> Iterator[sa.Engine]:
    engine = open_engine(empty_store_url)
    yield engine
    engine.dispose()


def tables(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def anatomy(engine: sa.Engine) -> dict[str, object]:
    """All that a schema is: columns, keys and indexes with their conditions, in the database's own words."""
    seen: dict[str, object] = {}
    inspector = sa.inspect(engine)
    for table in inspector.get_table_names():
        if table == "alembic_version":
            continue
        seen[f"{table} columns"] = sorted(
            (each["name"], str(each["type"]), each["nullable"], each["default"] and str(each["default"]))
            for each in inspector.get_columns(table)
        )
        seen[f"{table} key"] = inspector.get_pk_constraint(table)
        seen[f"{table} references"] = inspector.get_foreign_keys(table)
        seen[f"{table} unique"] = inspector.get_unique_constraints(table)
    indexes = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        if engine.dialect.name == "sqlite"
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    with engine.connect() as connection:
        seen["indexes"] = dict(map(tuple, connection.exec_driver_sql(indexes)))
    return seen


def test_an_empty_database_is_brought_to_the_head_once(empty: sa.Engine) -> None:
    assert current(empty) is None
    assert upgrade(empty) is True
    assert current(empty) == head()
    before = anatomy(empty)
    assert upgrade(empty) is False
    assert anatomy(empty) == before


def test_alembic_finds_nothing_left_to_do(empty: sa.Engine) -> None:
    upgrade(empty)
    with empty.connect() as connection:
        context = alembic.runtime.migration.MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert alembic.autogenerate.compare_metadata(context, metadata) == []


def test_the_sum_of_the_migrations_is_the_schema_of_the_program(empty: sa.Engine) -> None:
    upgrade(empty)
    migrated = anatomy(empty)
    with empty.begin() as connection:
        metadata.drop_all(connection)
    with empty.begin() as connection:
        metadata.create_all(connection)
    assert migrated == anatomy(empty)


def test_the_comparison_sees_a_missing_index(empty: sa.Engine) -> None:
    upgrade(empty)
    before = anatomy(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("DROP INDEX uq_leases_slot")
    assert anatomy(empty) != before


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(empty: sa.Engine) -> None:
    with empty.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE leases (mine int)")
    with pytest.raises(StoreError, match=r"leases.* already exists"):
        upgrade(empty)
    assert tables(empty) - {"alembic_version"} == {"leases"}
    assert current(empty) is None


def test_references_are_checked_again_after_an_upgrade(empty: sa.Engine) -> None:
    upgrade(empty)
    with empty.begin() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(
            sa.insert(metadata.tables["create_requests"]).values(
                request_id="r", pool="nowhere", placement="p", count=1, parameters=b"", state="open",
                created_at=NOON, due_at=NOON,
            )
        )  # fmt: skip


UPGRADE = """
import sys
from fleet.store.engine import open_engine, upgrade
engine = open_engine(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
upgrade(engine)
engine.dispose()
"""


def test_processes_that_upgrade_one_database_at_once_all_come_through(empty_store_url: str, empty: sa.Engine) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty_store_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    assert current(empty) == head()


def test_steps_are_numbered_in_one_line_and_say_when_they_run() -> None:
    """`pre` runs before the code is upgraded, `post` after; a second head would leave the order to chance."""
    numbers = []
    for path in STEPS:
        named = re.fullmatch(r"(\d{4})_(pre|post)_\w+\.py", path.name)
        assert named, f"{path.name}: name it NNNN_pre_what.py or NNNN_post_what.py"
        numbers.append(named[1])
        text = path.read_text(encoding="utf-8")
        assert f'revision = "{named[1]}"' in text
        before = f'"{numbers[-2]}"' if len(numbers) > 1 else "None"
        assert f"down_revision = {before}" in text
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]
    assert head() == numbers[-1]


def test_the_program_names_the_newest_migration() -> None:
    assert head() == newest()
