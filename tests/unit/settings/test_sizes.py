"""Room on a disk is read as people write it, and what could be misread is refused."""

from __future__ import annotations

import pytest

from fleet.settings.autoscaler import PoolTable
from fleet.settings.sizes import Room, room_of


@pytest.mark.parametrize(
    ("text", "room"),
    [
        ("10%", Room(percent=10)),
        (" 7.5 % ", Room(percent=7.5)),
        ("20 GiB", Room(bytes=20 << 30)),
        ("500mb", Room(bytes=500_000_000)),
        ("1.5GiB", Room(bytes=3 << 29)),
        ("0", Room()),
        ("0 GB", Room()),
        ("0%", Room()),
    ],
)
def test_shares_and_sizes_are_read(text: str, room: Room):
    assert room_of(text) == room


@pytest.mark.parametrize("text", ["10", "ten", "-5%", "101%", "5 bananas", "", "5 %%"])
def test_what_could_be_misread_is_refused_with_what_to_write(text: str):
    with pytest.raises(ValueError, match="write a share of the disk"):
        room_of(text)


def test_the_larger_of_bytes_and_share_counts():
    assert Room(bytes=100, percent=10).of(2000) == 200
    assert Room(bytes=300, percent=10).of(2000) == 300


def test_a_high_watermark_below_the_low_one_is_refused():
    with pytest.raises(ValueError, match="below disk_low_watermark"):
        PoolTable.model_validate({"disk_low_watermark": "30%"})
    with pytest.raises(ValueError, match="below disk_low_watermark"):
        PoolTable.model_validate({"disk_low_watermark": "3 GiB", "disk_high_watermark": "2 GiB"})
    assert PoolTable.model_validate({"disk_low_watermark": "30%", "disk_high_watermark": "40%"})


def test_by_default_a_tenth_free_is_low_and_images_are_left_to_the_kind_of_machine():
    table = PoolTable()
    assert (table.disk_low_watermark, table.disk_high_watermark, table.prune_images) == ("10%", "20%", None)
