"""The log stores no more than it may, tells what it left out, and knows the sum of what it stored."""

from __future__ import annotations

import pathlib
import zlib

import pytest

from fleet.agent.logfile import LogFile, cut_at_character


def test_size_and_checksum_are_of_what_is_in_the_file(tmp_path: pathlib.Path) -> None:
    log = LogFile(str(tmp_path / "log"), None, "")
    for piece in (b"one\n", b"", b"two"):
        log.write(piece)
    log.close()
    stored = (tmp_path / "log").read_bytes()
    assert (stored, log.size, log.crc32) == (b"one\ntwo", 7, zlib.crc32(b"one\ntwo"))


def test_over_the_limit_comes_one_notice_on_a_line_of_its_own_and_nothing_more(tmp_path: pathlib.Path) -> None:
    log = LogFile(str(tmp_path / "log"), 5, "too much")
    for piece in (b"abc", b"defg", b"h"):
        log.write(piece)
    log.close()
    stored = (tmp_path / "log").read_bytes()
    assert stored == b"abcde\ntoo much\n"
    assert (log.size, log.crc32) == (len(stored), zlib.crc32(stored))


def test_output_of_exactly_the_limit_has_no_notice(tmp_path: pathlib.Path) -> None:
    log = LogFile(str(tmp_path / "log"), 3, "too much")
    log.write(b"abc")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"abc"


@pytest.mark.parametrize("limit", range(8))
def test_the_cut_is_between_characters(limit: int) -> None:
    text = "a\u20ac\U0001f600".encode()
    kept = cut_at_character(text, limit)
    kept.decode()
    assert len(kept) <= limit
    assert text.startswith(kept)
