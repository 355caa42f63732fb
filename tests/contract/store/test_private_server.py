"""The private PostgreSQL of the tests behaves as the tests of faults need it."""

from __future__ import annotations

import pathlib

import psycopg
import pytest

from tests.postgres import EXTERNAL, Cluster, NoPostgres, binaries, server


def test_a_server_stops_and_starts_again_at_the_same_address(
    postgres_server: Cluster, postgres_server_url: str
) -> None:
    with psycopg.connect(postgres_server_url) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    postgres_server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_server_url, connect_timeout=5)
    postgres_server.start()
    with psycopg.connect(postgres_server_url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_paused_server_answers_nothing_until_it_is_resumed(
    postgres_server: Cluster, postgres_server_url: str
) -> None:
    postgres_server.pause()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(postgres_server_url, connect_timeout=2)
    postgres_server.resume()
    psycopg.connect(postgres_server_url, connect_timeout=10).close()


def test_each_test_gets_a_database_of_its_own(postgres_url: str, empty_postgres_url: str) -> None:
    assert postgres_url != empty_postgres_url
    with psycopg.connect(empty_postgres_url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert found == (0,)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_given_server_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXTERNAL, "postgresql://somebody@elsewhere/postgres")
    with server() as url:
        assert url == "postgresql://somebody@elsewhere/postgres"


def test_without_a_server_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.postgres.INSTALLED", tmp_path)
    with pytest.raises(NoPostgres, match="install Debian's `postgresql`"):
        binaries()


def test_nothing_is_left_of_a_server_that_was_discarded() -> None:
    cluster = Cluster.create()
    cluster.start()
    assert cluster.process is not None
    process = cluster.process
    cluster.discard()
    assert process.poll() is not None
    assert not cluster.home.exists()
