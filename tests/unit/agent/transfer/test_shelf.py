"""Where an archive lies on the machine: no link leads elsewhere, and nobody sees half of it."""

from __future__ import annotations

import os
import pathlib

import pytest

from fleet.agent.transfer.shelf import TEMPORARY, Shelf


def shelf(root: pathlib.Path, path: str = "group/project/key/cache.zip") -> Shelf:
    return Shelf(str(root), str(root / path))


def put(root: pathlib.Path, content: bytes, path: str = "group/project/key/cache.zip") -> None:
    with shelf(root, path) as at, at.anew() as draft:
        draft.file.write(content)
        draft.put()


def test_what_is_put_can_be_opened_and_is_replaced_as_a_whole(tmp_path):
    put(tmp_path, b"one")
    with shelf(tmp_path) as at, at.opened() as old:
        put(tmp_path, b"two")
        assert old.read() == b"one"
        with at.opened() as new:
            assert new.read() == b"two"
    assert [path.name for path in (tmp_path / "group/project/key").iterdir()] == ["cache.zip"]


def test_what_was_not_put_leaves_nothing(tmp_path):
    with shelf(tmp_path) as at, at.anew() as draft:
        draft.file.write(b"half")
    assert list((tmp_path / "group/project/key").iterdir()) == []


def test_the_cache_directory_itself_may_be_a_link_and_nothing_below_it(tmp_path):
    real = tmp_path / "disk"
    real.mkdir()
    (tmp_path / "cache").symlink_to(real)
    put(tmp_path / "cache", b"x")
    assert (real / "group/project/key/cache.zip").read_bytes() == b"x"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (real / "other").symlink_to(elsewhere)
    with pytest.raises(OSError, match="other"):
        put(tmp_path / "cache", b"x", "other/key/cache.zip")
    assert list(elsewhere.iterdir()) == []


def test_an_archive_that_is_a_link_is_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "cache" / "k"
    folder.mkdir(parents=True)
    (folder / "cache.zip").symlink_to(secret)
    with shelf(tmp_path / "cache", "k/cache.zip") as at, pytest.raises(OSError, match="symbolic"):
        at.opened()
    put(tmp_path / "cache", b"new", "k/cache.zip")
    assert secret.read_text() == "secret"


def test_a_path_outside_is_refused(tmp_path):
    with pytest.raises(OSError, match="outside"):
        Shelf(str(tmp_path / "cache"), str(tmp_path / "other" / "cache.zip"))


def test_only_the_file_that_is_open_is_removed(tmp_path):
    put(tmp_path, b"bad")
    with shelf(tmp_path) as at:
        with at.opened() as bad:
            put(tmp_path, b"good")
            at.remove(bad)
        with at.opened() as good:
            assert good.read() == b"good"
            at.remove(good)
        assert at.opened() is None


def test_what_a_killed_job_left_is_swept_after_a_day(tmp_path):
    put(tmp_path, b"x")
    folder = tmp_path / "group/project/key"
    for name, age_s in ((f"{TEMPORARY}1.1", 90_000), (f"{TEMPORARY}2.2", 60)):
        (folder / name).write_bytes(b"half")
        then = (folder / name).stat().st_mtime - age_s
        os.utime(folder / name, (then, then))
    with shelf(tmp_path) as at:
        at.sweep()
    assert sorted(path.name for path in folder.iterdir()) == [f"{TEMPORARY}2.2", "cache.zip"]
