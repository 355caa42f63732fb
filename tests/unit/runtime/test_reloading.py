"""The file is read again when its content changed, and what is broken there changes nothing."""

from __future__ import annotations

import os

import pytest
from structlog.testing import capture_logs

from fleet.runtime.reloading import Reloader
from fleet.settings.environment import Overrides
from fleet.settings.loading import load
from fleet.store.engine import StoreUnavailable

GOOD = "concurrent = 1\n"


@pytest.fixture
def reloader(manager, config) -> Reloader:
    return Reloader(manager, {}, Overrides(), in_force=load(config, {}).content_hash)


def change(config, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


class AwayStore:
    """Takes no write."""

    def write(self, work):
        raise StoreUnavailable("it is away")


def test_a_file_that_says_the_same_is_not_reloaded(reloader, config):
    assert not reloader.look()
    os.utime(config, (1, 1))
    assert not reloader.look()
    assert (reloader.loaded, reloader.failed) == (0, 0)


def test_a_change_between_the_first_reading_and_the_first_look_is_seen(manager, config):
    before = load(config, {}).content_hash
    change(config, GOOD, "concurrent = 2\n")
    reloader = Reloader(manager, {}, Overrides(), in_force=before)
    assert reloader.look()
    assert manager.intake.concurrent == 2


def test_it_can_be_forced(reloader):
    assert reloader.look(forced=True)
    assert reloader.loaded == 1


def test_a_broken_file_is_told_with_its_line_and_changes_nothing(reloader, manager, config):
    change(config, GOOD, "concurent = 2\n")
    with capture_logs() as lines:
        assert not reloader.look()
        assert not reloader.look(), "it is told once"
    assert manager.intake.concurrent == 1
    assert manager.file_problem is not None
    assert f"{config}:2: error: concurent: unknown key" in manager.file_problem
    assert [line["event"] for line in lines] == ["configuration_problem", "configuration_not_reloaded"]
    change(config, "concurent = 2\n", "concurrent = 3\n")
    assert reloader.look()
    assert manager.file_problem is None
    assert manager.intake.concurrent == 3


def test_what_holds_from_the_start_keeps_its_value_and_is_told(reloader, manager, config, tmp_path):
    before = manager.settings.fleet
    change(config, f'state_dir = "{tmp_path}/state"', f'state_dir = "{tmp_path}/other"')
    change(config, "reserve_free_bytes = 0", "reserve_free_bytes = 5")
    with capture_logs() as lines:
        assert reloader.look()
    (told,) = [line for line in lines if line["event"] == "restart_needed"]
    assert "fleet.state_dir" in told["keys"]
    assert "fleet.reserve_free_bytes" not in told["keys"]
    assert manager.settings.fleet.state_dir == before.state_dir
    assert manager.disks.reserve_bytes == 5


def test_a_database_that_is_away_is_no_fault_of_the_file_and_is_tried_again(reloader, manager, config):
    change(config, GOOD, "concurrent = 2\n")
    manager.configurator.store = AwayStore()
    with capture_logs() as lines:
        assert not reloader.look()
        assert not reloader.look()
    assert [line["event"] for line in lines] == ["configuration_problem", "configuration_not_reloaded"]
    assert reloader.failed == 2
    manager.configurator.store = manager.store
    assert reloader.look()
    assert manager.intake.concurrent == 2


def test_a_retired_runner_and_its_pool_stay_known_to_the_store(reloader, manager, config):
    text = config.read_text()
    config.write_text(text[: text.index("[[runners]]")])
    assert reloader.look()
    (runner,) = manager.book.runners.values()
    (pool,) = manager.book.pools.values()
    assert runner.retired
    assert pool.retired
    assert pool.limits.retired
    config.write_text(text)
    assert reloader.look()
    assert not next(iter(manager.book.runners.values())).retired
