"""Frames of `fleetctl attach`: whatever the pieces, the frames are the same, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.runtime.attach_frames import DATA, END, LARGEST, NOTE, SIZE, BrokenFrame, Unpacker, pack

KINDS = st.sampled_from([DATA, END, NOTE, SIZE])


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300))), st.integers(1, 50))
def test_frames_survive_any_cut(frames, step):
    stream = b"".join(pack(kind, payload) for kind, payload in frames)
    unpacker, found = Unpacker(), []
    for at in range(0, len(stream), step):
        found += unpacker.feed(stream[at : at + step])
    assert found == frames


@pytest.mark.parametrize("data", [b"HTTP/1.1 500 x", b"d" + (LARGEST + 1).to_bytes(4, "big")])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(BrokenFrame):
        list(Unpacker().feed(data))
