from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.machine.frames import MAX_BODY_BYTES, BrokenFrame, FrameReader, encode

heads = st.fixed_dictionaries({"type": st.text(max_size=8)}, optional={"id": st.integers(), "text": st.text()})
frames = st.lists(st.tuples(heads, st.binary(max_size=200)), max_size=8)


@given(sent=frames, cuts=st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=40))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent: list, cuts: list[int]) -> None:
    stream = b"".join(encode(head, body) for head, body in sent)
    reader, got, at, turn = FrameReader(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        got += reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == sent


@pytest.mark.parametrize(
    "stream",
    [
        b"Welcome to this machine!",
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0{}",
        b"\0\0\0\2\0\0\0\0xx",
        b"\0\0\0\2\x7f\0\0\0{}",
    ],
)
def test_what_is_no_frame_breaks_the_stream(stream: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(FrameReader().feed(stream))


def test_a_body_over_the_limit_is_not_sent() -> None:
    with pytest.raises(BrokenFrame, match="over the limits"):
        encode({"type": "x"}, b"x" * (MAX_BODY_BYTES + 1))


def test_reading_costs_what_the_bytes_cost() -> None:
    def cost(megabytes: int) -> float:
        frame = encode({"type": "data"}, b"x" * MAX_BODY_BYTES)
        reader = FrameReader()
        begun = time.process_time()
        for _ in range(megabytes):
            for at in range(0, len(frame), 16384):
                list(reader.feed(frame[at : at + 16384]))
        return time.process_time() - begun

    cost(4)
    assert cost(64) < 5 * max(cost(16), 0.001)
