"""Frames come out as they went in, however the bytes arrive; what is no frame ends the channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent.errors import BrokenFrame
from fleet.agent.frames import BODY_LIMIT, HEAD_LIMIT, LENGTHS, Decoder, encode


@given(st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=9)), max_size=4), st.integers(1, 40))
def test_frames_survive_any_cut(frames, size) -> None:
    wanted = [({"type": name}, body) for name, body in frames]
    stream = b"".join(encode(head, body) for head, body in wanted)
    decoder, got = Decoder(), []
    for at in range(0, len(stream), size):
        got += decoder.feed(stream[at : at + size])
    assert got == wanted


@pytest.mark.parametrize(
    "stream",
    [
        LENGTHS.pack(HEAD_LIMIT + 1, 0),
        LENGTHS.pack(2, BODY_LIMIT + 1),
        LENGTHS.pack(2, 0) + b"{]",
        LENGTHS.pack(2, 0) + b"[]",
        LENGTHS.pack(2, 0) + b"{}",
    ],
    ids=["long head", "long body", "no json", "no object", "no type"],
)
def test_what_is_no_frame_is_refused(stream: bytes) -> None:
    with pytest.raises(BrokenFrame):
        Decoder().feed(stream)
