"""A start that is refused leaves nothing held, and one that is told to stop meanwhile stops."""

from __future__ import annotations

import socket

import pytest

from fleet.runtime.locks import InUse
from fleet.runtime.starting import CannotStart, make_manager
from fleet.settings.loading import load
from fleet.store.seal import SealError
from tests.unit.runtime.conftest import write


def settings_of(config):
    found = load(config, {})
    assert found.settings is not None, found.lines()
    return found.settings


def test_a_second_manager_on_the_same_state_is_refused(manager, config):
    with pytest.raises(InUse, match="the state directory"):
        make_manager(settings_of(config), {})
    manager.close("make room")
    again = make_manager(settings_of(config), {})
    assert again is not None
    again.close("over")


def test_a_refused_start_lets_go_of_its_locks(config, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "secret.key").write_text("no key")
    (state / "secret.key").chmod(0o600)
    for _ in range(2):
        with pytest.raises(SealError):
            make_manager(settings_of(config), {})
    (state / "secret.key").unlink()
    made = make_manager(settings_of(config), {})
    assert made is not None
    made.close("over")


def test_a_directory_for_traces_that_cannot_be_made_names_its_key(config, tmp_path):
    (tmp_path / "file").touch()
    write(config, fleet=f'spool_dir = "{tmp_path}/file/spool"')
    with pytest.raises(CannotStart, match=r"\[fleet\] spool_dir"):
        make_manager(settings_of(config), {})


def test_who_waits_for_a_database_may_be_told_to_stop(config):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        write(config, fleet=f'database = "postgresql://fleet@127.0.0.1:{nobody.getsockname()[1]}/fleet"')
        looks = iter([False, False])
        assert make_manager(settings_of(config), {}, should_stop=lambda: next(looks, True)) is None


def test_closing_twice_is_closing_once(config):
    made = make_manager(settings_of(config), {})
    assert made is not None
    made.close("over")
    made.close("over")
    assert made.state == "stopped"
