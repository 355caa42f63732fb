"""What keeps a manager from starting is said in one clear message, with an exit code, and never with a traceback."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import sqlite3

import pytest
from cryptography.fernet import Fernet

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

NEGATIVE, CONFIG, UNREACHABLE = 1, 3, 4


def refused(manager, code: int) -> str:
    """Start it, and return what it said when it refused with this exit code."""
    manager.start()
    assert manager.wait(40) == code, manager.log()
    said = manager.log()
    assert "Traceback" not in said
    return said


def error_of(manager) -> str:
    (told,) = manager.events("manager_not_started")
    return told["error"]


def started(manager) -> None:
    count = len(manager.events("manager_started")) if manager.starts else 0
    manager.start()
    wait_until(lambda: len(manager.events("manager_started")) > count, 40, "the start")


def works(gitlab) -> None:
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=40)
    assert view.state == "success"


def test_an_unknown_key_is_named_with_file_line_and_the_nearest_known_key(make_manager):
    manager = make_manager(top="concurent = 4")
    line = manager.config.read_text().splitlines().index("concurent = 4") + 1
    said = refused(manager, CONFIG)
    assert f"{manager.config}:{line}: error: concurent: unknown key" in said
    assert "concurrent" in said
    assert "nothing was started" in said
    assert not manager.state.exists(), "nothing was made either"


def test_a_missing_configuration_file_says_how_to_get_one(make_manager):
    manager = make_manager()
    manager.config.unlink()
    said = refused(manager, CONFIG)
    assert str(manager.config) in said
    assert "fleetctl register" in said


def test_a_database_of_a_newer_version_is_left_alone(gitlab, make_manager):
    manager = make_manager()
    started(manager)
    assert manager.stop(timeout=10) == 0
    with contextlib.closing(sqlite3.connect(manager.state / "fleet.sqlite")) as store, store:
        store.execute("UPDATE alembic_version SET version_num = '9999_of_the_future'")
    refused(manager, UNREACHABLE)
    assert "9999_of_the_future" in error_of(manager)
    assert "install that version again, or restore the backup" in error_of(manager)


def test_a_file_that_is_no_database_says_so_and_is_left_alone(make_manager):
    manager = make_manager()
    manager.state.mkdir()
    (manager.state / "fleet.sqlite").write_text("once upon a time " * 100)
    refused(manager, UNREACHABLE)
    assert "file is not a database" in error_of(manager)
    assert (manager.state / "fleet.sqlite").read_text().startswith("once upon a time")


def test_a_state_directory_in_use_names_the_process_that_uses_it(gitlab, make_manager):
    first = make_manager("first")
    started(first)
    second = make_manager("second", runner=first.runner)
    second.write(second.config.read_text().replace(str(second.state), str(first.state)))
    refused(second, NEGATIVE)
    assert f"process {first.pid}" in error_of(second)
    assert f"the state directory {first.state}" in error_of(second)
    works(gitlab)


def test_an_sqlite_file_in_use_names_the_process_that_uses_it(gitlab, make_manager):
    first = make_manager("first")
    started(first)
    key = f'secret_key_file = "{first.state}/secret.key"'
    file = f"sqlite:///{first.state}/fleet.sqlite"
    second = make_manager("second", runner=first.runner, database=file, fleet_keys=key)
    refused(second, NEGATIVE)
    assert f"process {first.pid}" in error_of(second)
    assert "PostgreSQL" in error_of(second), "it says how managers share a fleet"
    works(gitlab)
    first.kill()
    started(second)  # a lock ends with its process, however that ended


def test_a_named_secret_key_file_that_is_missing_is_not_made(make_manager, tmp_path):
    manager = make_manager(fleet_keys=f'secret_key_file = "{tmp_path}/key"')
    said = refused(manager, CONFIG)
    assert f"{tmp_path}/key" in said
    assert "fleetctl db new-key" in said
    assert not (tmp_path / "key").exists()


def test_a_secret_key_that_others_can_read_is_refused_named_or_not(make_manager, tmp_path):
    named = make_manager("named", fleet_keys=f'secret_key_file = "{tmp_path}/key"')
    (tmp_path / "key").write_bytes(Fernet.generate_key())
    (tmp_path / "key").chmod(0o644)
    said = refused(named, CONFIG)
    assert f"{tmp_path}/key can be read by others: run chmod 600 on it" in said
    own = make_manager("own")
    started(own)
    assert own.stop(timeout=10) == 0
    (own.state / "secret.key").chmod(0o640)
    refused(own, CONFIG)
    assert f"chmod 600 {own.state}/secret.key" in error_of(own)


def test_a_wrong_secret_key_says_that_another_one_wrote_the_store(gitlab, make_manager):
    manager = make_manager()
    started(manager)
    assert manager.stop(timeout=10) == 0
    key = (manager.state / "secret.key").read_bytes()
    (manager.state / "secret.key").write_bytes(Fernet.generate_key())
    refused(manager, CONFIG)
    assert "sealed with another key" in error_of(manager)
    (manager.state / "secret.key").write_bytes(b"not a key at all")
    manager.start()
    assert manager.wait(40) == CONFIG
    assert "fleetctl db new-key" in manager.events("manager_not_started")[-1]["error"]
    (manager.state / "secret.key").write_bytes(key)
    started(manager)
    works(gitlab)


def test_a_state_directory_that_cannot_be_made_is_named(make_manager):
    manager = make_manager()
    manager.state.write_text("a file stands here")
    refused(manager, NEGATIVE)
    assert str(manager.state) in error_of(manager)


def test_a_spool_directory_that_cannot_be_made_names_its_key(make_manager):
    manager = make_manager(fleet_keys='spool_dir = "/proc/nowhere/spool"')
    refused(manager, NEGATIVE)
    assert "/proc/nowhere/spool" in error_of(manager)
    assert "[fleet] spool_dir" in error_of(manager)


def test_a_database_that_cannot_be_made_is_waited_for_and_named(gitlab, make_manager, tmp_path):
    manager = make_manager(database=f"sqlite:///{tmp_path}/blocked/fleet.db")
    (tmp_path / "blocked").write_text("a file stands here")
    manager.start()
    assert manager.wait(40) == NEGATIVE
    assert f"{tmp_path}/blocked" in error_of(manager)
    (tmp_path / "blocked").unlink()
    started(manager)


def test_a_configuration_that_cannot_be_written_keeps_nobody_from_starting(gitlab, make_manager):
    """A bind mount stands for a file that may be read and not replaced: the renewed token is kept in the store."""
    manager = make_manager()
    text = manager.config.read_text()
    life = "token_obtained_at = 2026-01-01T00:00:00Z\ntoken_expires_at = 2026-01-02T00:00:00Z\n"
    manager.write(text.replace('executor = "instance"', f'{life}executor = "instance"'))
    with read_only(manager.config):
        manager.start()
        told = wait_until(lambda: manager.events("token_not_saved"), 40, "the word that it was not saved")
        assert str(manager.config) in told[0]["error"]
        works(gitlab)
        manager.kill()
        manager.start()  # the file has the old token still; the store's is newer
        works(gitlab)
        assert manager.stop(timeout=10) == 0
    assert "Traceback" not in manager.log()


@contextlib.contextmanager
def read_only(path: pathlib.Path):
    """Mounts the file over itself, so that it cannot be replaced by another."""
    os.system(f"mount --bind {path} {path}")
    try:
        assert path.is_file()
        yield
    finally:
        os.system(f"umount {path}")


def test_signals_that_come_before_the_start_are_heard(make_manager, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        manager = make_manager(database=f"postgresql://fleet:secret@127.0.0.1:{port}/fleet")
        manager.start()
        told = wait_until(lambda: manager.events("database_unavailable"), 40, "the word that it is awaited")
        assert "secret" not in manager.log()
        assert told[0]["again_in_s"] == 1.0
        manager.send(signal.SIGHUP)
        wait_until(lambda: len(manager.events("database_unavailable")) >= 2, 20, "the next try")
        assert manager.stop(signal.SIGTERM, timeout=10) == 0
    assert "Traceback" not in manager.log()


@pytest.mark.parametrize("key", ["listen_address", "api_listen"])
def test_a_port_in_use_is_named_with_its_key(make_manager, key):
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        address = f"127.0.0.1:{somebody.getsockname()[1]}"
        manager = make_manager(top=f'listen_address = "{address}"' if key == "listen_address" else "")
        if key == "api_listen":
            text = manager.config.read_text()
            manager.write(text.replace('api_listen = "127.0.0.1:0"', f'api_listen = "{address}"'))
        refused(manager, NEGATIVE)
    assert key in error_of(manager)
    assert address in error_of(manager)
    assert manager.rows("SELECT state FROM managers") == [{"state": "stopped"}], "nothing is left claimed"
