from __future__ import annotations

import os
import pathlib

from fleet.places.local.registry import Record, machine_ids, records, remove_tree


def test_the_ids_of_a_token_never_change_and_differ_between_directories(tmp_path: pathlib.Path) -> None:
    assert machine_ids(tmp_path, "t", 2) == machine_ids(tmp_path, "t", 2)
    assert machine_ids(tmp_path, "t", 1)[0] == machine_ids(tmp_path, "t", 3)[0]
    assert machine_ids(tmp_path, "t", 1) != machine_ids(tmp_path / "other", "t", 1)


def test_a_record_lives_while_its_lock_is_held(tmp_path: pathlib.Path) -> None:
    record = Record(tmp_path, "m")
    record.make({"token": "t"})
    assert not record.is_alive()
    fd = record.hold()
    assert record.is_alive()
    os.close(fd)
    assert not record.is_alive()


def test_a_half_made_record_is_not_seen(tmp_path: pathlib.Path) -> None:
    (tmp_path / "machines" / ".new-m").mkdir(parents=True)
    assert records(tmp_path) == []


def test_a_tree_with_read_only_parts_is_removed_and_nothing_behind_its_links(tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "link").symlink_to(outside)
    (tree / "a" / "b").chmod(0o500)
    (tree / "a").chmod(0o000)
    remove_tree(tree)
    assert not tree.exists()
    assert outside.stat().st_mode & 0o777 == 0o500
