"""UTF-8 is repaired and lines are stamped as GitLab stamps them, however the output is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.agent.text import LINE_HELD_BYTES, Clock, Repair, Stamper

NOW = b"2024-05-22T12:43:46.962646Z "
INSTANT = 1716381826.962646


def stamper() -> Stamper:
    return Stamper(b"01O", Clock(lambda: INSTANT))


@given(st.binary(max_size=60), st.lists(st.integers(0, 5), max_size=20))
def test_repaired_text_is_utf8_and_the_same_wherever_the_output_is_cut(data, sizes) -> None:
    repair, out, at = Repair(), b"", 0
    for size in sizes:
        piece = repair.feed(data[at : at + size])
        piece.decode()
        out += piece
        at += size
    out += repair.feed(data[at:]) + repair.flush()
    assert out == data.decode("utf-8", "replace").encode()


def test_a_character_in_two_chunks_is_whole() -> None:
    repair = Repair()
    euro = "\u20ac".encode()
    assert [repair.feed(euro[:1]), repair.feed(euro[1:2]), repair.feed(euro[2:])] == [b"", b"", euro]


def test_a_character_that_never_ends_is_replaced_at_the_end() -> None:
    repair = Repair()
    assert repair.feed(b"a\xe2\x82") + repair.flush() == "a\ufffd".encode()


def test_zero_bytes_pass() -> None:
    assert Repair().feed(b"a\0b") == b"a\0b"


def test_each_line_has_the_stamp_the_stream_and_a_space() -> None:
    assert stamper().feed(b"one\ntwo\n") == NOW + b"01O one\n" + NOW + b"01O two\n"


def test_an_empty_line_has_a_stamp_too() -> None:
    assert stamper().feed(b"\n\n") == (NOW + b"01O \n") * 2


def test_a_line_that_comes_in_pieces_is_one_line() -> None:
    one = stamper()
    assert one.feed(b"he") == b""
    assert one.is_holding
    assert one.feed(b"llo\nx") == NOW + b"01O hello\n"
    assert one.close() == NOW + b"01O x\n"


def test_a_line_that_was_shown_before_its_end_goes_on_with_a_plus() -> None:
    one = stamper()
    one.feed(b"50%")
    assert one.show() == NOW + b"01O 50%\n"
    assert one.feed(b" 100%\nnext\n") == NOW + b"01O+ 100%\n" + NOW + b"01O next\n"


def test_a_carriage_return_shows_the_line_at_once() -> None:
    one = stamper()
    assert one.feed(b"10%\r") == NOW + b"01O 10%\r\n"
    assert one.feed(b"20%\r") == NOW + b"01O+20%\r\n"


def test_a_carriage_return_inside_whole_lines_stays_where_it_is() -> None:
    assert stamper().feed(b"a\r\nb\rc\n") == NOW + b"01O a\r\n" + NOW + b"01O b\rc\n"


def test_a_long_line_is_shown_in_pieces() -> None:
    one = stamper()
    assert one.feed(b"x" * (LINE_HELD_BYTES + 1)) == NOW + b"01O " + b"x" * (LINE_HELD_BYTES + 1) + b"\n"
    assert one.feed(b"y\n") == NOW + b"01O+y\n"


def test_after_the_end_of_a_stage_a_line_is_new() -> None:
    one = stamper()
    one.feed(b"a")
    assert one.close() + one.feed(b"b\n") == NOW + b"01O a\n" + NOW + b"01O b\n"
