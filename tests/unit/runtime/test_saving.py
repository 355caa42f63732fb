"""What we write into the configuration file is told from what a person writes there."""

from __future__ import annotations

import pathlib
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from fleet.runtime.saving import REMEMBERED, Saver
from fleet.settings.loading import load
from fleet.store.book import Runner

CONFIG = """
concurrent = 1
[[runners]]
name = "one"
url = "https://gitlab.example"
id = 7
token = "word-0"
executor = "instance"
[runners.autoscaler]
plugin = "local"
max_instances = 1
"""
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    path = tmp_path / "fleet.toml"
    path.write_text(CONFIG)
    return path


def hash_of(config: pathlib.Path) -> str:
    found = load(config, {}).content_hash
    assert found is not None
    return found


def runner(config: pathlib.Path, token: str) -> Runner:
    (settings,) = load(config, {}).settings.runners
    return Runner(key=settings.key, settings=settings, token=token, short_token=token, pool=settings.pool)


def saved(saver: Saver, config: pathlib.Path, old: str, new: str) -> None:
    saver.save_token(runner(config, old), new, NOON, None)
    assert f'"{new}"' in config.read_text()


def test_any_number_of_our_own_writes_is_no_change(config):
    saver = Saver(path=str(config), env={})
    before = hash_of(config)
    saved(saver, config, "word-0", "word-1")
    assert saver.only_ours_between(before, hash_of(config))
    saved(saver, config, "word-1", "word-2")
    assert saver.only_ours_between(before, hash_of(config))
    assert saver.saved == 2


def test_a_persons_edit_under_our_write_is_a_change(config):
    saver = Saver(path=str(config), env={})
    before = hash_of(config)
    config.write_text(CONFIG.replace("concurrent = 1", "concurrent = 2"))
    saved(saver, config, "word-0", "word-1")
    assert not saver.only_ours_between(before, hash_of(config))


def test_a_persons_edit_on_top_of_our_write_is_a_change_and_so_is_its_way_back(config):
    saver = Saver(path=str(config), env={})
    before = hash_of(config)
    saved(saver, config, "word-0", "word-1")
    ours = config.read_text()
    config.write_text(ours.replace("concurrent = 1", "concurrent = 2"))
    in_force = hash_of(config)
    assert not saver.only_ours_between(before, in_force)
    config.write_text(ours)
    assert not saver.only_ours_between(in_force, hash_of(config))


def test_a_file_that_cannot_be_read_is_a_change(config):
    saver = Saver(path=str(config), env={})
    assert not saver.only_ours_between(hash_of(config), None)


def test_it_remembers_a_bounded_number_of_writes(config):
    saver = Saver(path=str(config), env={})
    for number in range(REMEMBERED + 5):
        saved(saver, config, f"word-{number}", f"word-{number + 1}")
    assert len(saver.ours) == REMEMBERED


def test_a_write_that_fails_is_told_and_is_no_error(config):
    saver = Saver(path=str(config), env={})
    one = runner(config, "word-0")
    config.unlink()
    with capture_logs() as lines:
        saver.save_token(one, "word-1", NOON, None)
    assert saver.failed == 1
    (line,) = lines
    assert line["event"] == "token_not_saved"
    assert line["kept"] == "the store has it"
    assert "word-1" not in str(line)
