"""Whoever has only the database can read no secret (law 9)."""

from __future__ import annotations

import os
import pathlib
import secrets
import stat
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from fleet.store import jobs, pools
from fleet.store.database import Store, Tx
from fleet.store.engine import open_engine
from fleet.store.seal import Seal, SealError, key_from_file
from tests.contract.store.world import add_job, add_runner, at_once, new_seal, opened


def test_law_9_no_secret_can_be_read_in_the_raw_database(store: Store, store_url: str, tmp_path: pathlib.Path) -> None:
    hidden = {name: f"hidden-{name}-{secrets.token_hex(12)}" for name in ("token", "payload", "runner", "pool", "key")}
    hidden["request"] = f"hidden-{secrets.token_hex(12)}"

    def work(tx: Tx) -> None:
        pools.put_pool(
            tx,
            "linux",
            plugin="local",
            settings={"password": hidden["pool"]},
            fingerprint="f",
            keys=(hidden["key"], "public-half"),
        )
        add_runner(tx, token=hidden["runner"])
        add_job(tx, token=hidden["token"], payload=hidden["payload"].encode())
        parameters = {"user_data": hidden["request"]}
        pools.add_request(
            tx, request_id="r", pool="linux", placement="a", count=1, parameters=parameters, reason="demand"
        )

    store.write(work)
    raw = raw_content(store_url, tmp_path)
    assert b"public-half" in raw, "what is not secret is readable there"
    assert [name for name, value in hidden.items() if value.encode() in raw] == []


def test_law_9_an_error_of_the_database_tells_no_values_of_rows(store_url: str) -> None:
    engine, hidden = open_engine(store_url), secrets.token_hex(12)
    try:
        with engine.connect() as connection, pytest.raises(sa.exc.SQLAlchemyError) as told:
            connection.execute(sa.text("SELECT 1 FROM no_such_table WHERE name = :name"), {"name": hidden})
    finally:
        engine.dispose()
    assert "no_such_table" in str(told.value)
    assert hidden not in str(told.value)


def raw_content(url: str, tmp_path: pathlib.Path) -> bytes:
    """Every byte of the SQLite files, or every column of every row in PostgreSQL."""
    if url.startswith("sqlite"):
        return b"".join(path.read_bytes() for path in tmp_path.glob("fleet.db*"))
    found = b""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            for row in connection.execute(f'SELECT * FROM "{name}"').fetchall():
                found += b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
    return found


def test_another_key_opens_nothing_and_says_which_is_wanted(store: Store, store_url: str) -> None:
    key = store.write(lambda tx: add_job(tx, payload=b"x"))
    stranger = opened(store_url, new_seal())
    try:
        with pytest.raises(SealError, match="start with the secret key that wrote it"):
            stranger.read(lambda tx: jobs.payload_of(tx, key))
    finally:
        stranger.close()


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(SealError, match="fleetctl db new-key"):
        Seal("not a key")


def test_json_comes_back_as_it_was_sealed(seal: Seal) -> None:
    value = {"a": [1, "ü", None]}
    assert seal.open_json(seal.close_json(value)) == value
    assert seal.close_json(value) != seal.close_json(value), "equal secrets do not look equal"


def test_a_key_file_is_made_for_its_owner_alone_and_used_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state" / "secret_key"
    key = key_from_file(path, create=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_from_file(path, create=True) == key
    Seal(key)


def test_processes_that_make_the_key_file_at_once_come_to_one_key(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    keys = at_once([lambda: key_from_file(path, create=True)] * 8)
    assert len(set(keys)) == 1
    Seal(str(keys[0]))
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_key_file_is_not_made_unless_asked(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SealError, match="FLEET_SECRET_KEY"):
        key_from_file(tmp_path / "absent", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: pathlib.Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(Fernet.generate_key())
    path.chmod(mode)
    with pytest.raises(SealError, match=r"chmod 600"):
        key_from_file(path, create=True)


def test_a_key_file_of_something_else_is_refused_in_plain_words(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(os.urandom(64))
    path.chmod(0o600)
    with pytest.raises(SealError, match="not a Fernet key"):
        Seal(key_from_file(path, create=False))


def test_an_empty_key_file_is_refused_and_not_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    with pytest.raises(SealError):
        Seal(key_from_file(path, create=True))


def test_the_database_file_is_for_its_owner_alone(tmp_path: pathlib.Path, open_file: Callable[[str], Store]) -> None:
    path = tmp_path / "state" / "fleet.db"
    store = open_file(f"sqlite:///{path}")
    store.write(add_job)
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}
