"""The spool keeps each trace from byte 0, and nothing of a trace that was removed."""

from __future__ import annotations

import zlib

import pytest

from fleet.store.spool import Spool, SpoolGap


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def files(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.directory.iterdir())


def test_what_is_there_already_is_skipped(spool):
    spool.append("k", 0, b"abc")
    assert spool.append("k", 1, b"bcde") == 5
    assert spool.append("k", 0, b"ab") == 5
    assert spool.read("k", 0, 10) == b"abcde"


def test_a_gap_is_refused(spool):
    spool.append("k", 0, b"abc")
    with pytest.raises(SpoolGap):
        spool.append("k", 4, b"e")
    assert spool.size("k") == 3


def test_looking_makes_no_file(spool):
    assert (spool.size("k"), spool.read("k", 0, 5), spool.crc("k", 9), spool.sync("k")) == (0, b"", 0, 0)
    assert files(spool) == []


def test_the_checksum_is_of_the_bytes_asked_for(spool):
    spool.append("k", 0, b"abcdef")
    assert spool.crc("k", 6) == zlib.crc32(b"abcdef")
    assert spool.crc("k", 3) == zlib.crc32(b"abc")


def test_a_late_writer_does_not_bring_a_removed_trace_back(spool):
    spool.append("k", 0, b"abc")
    spool.remove("k")
    spool.append("k", 0, b"abc")
    spool.append("k", 3, b"late")
    assert spool.size("k") == 0
    assert files(spool) == []


def test_a_job_that_moves_begins_its_trace_again(spool):
    spool.append("k", 0, b"first machine")
    spool.begin_again("k")
    spool.append("k", 0, b"second")
    assert spool.read("k", 0, 100) == b"second"


def test_a_file_that_was_let_go_is_found_again(spool):
    spool.append("k", 0, b"abc")
    spool.let_go("k")
    assert spool.append("k", 3, b"d") == 4


def test_leftovers_are_files_that_nobody_needs(spool):
    for key in ("open", "in use", "left"):
        spool.append(key, 0, b"x")
    spool.let_go("open")
    spool.let_go("left")
    assert spool.leftovers({"open"}) == ["left"]
