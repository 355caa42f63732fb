from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.settings.durations import parse, text_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20m0s", 1200),
        ("1h30m", 5400),
        ("90s", 90),
        ("0", 0),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("15us", 0.000015),
        ("15\u00b5s", 0.000015),
        ("-5m", -300),
        ("+5m", 300),
        ("720h", 2592000),
    ],
)
def test_go_syntax_is_read(text: str, seconds: float):
    assert parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1d", "1h30", "h1", "1h-30m", "ten minutes", "-", "1e3s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str):
    with pytest.raises(ValueError, match="1h30m"):
        parse(text)


def test_more_than_go_can_count_is_refused():
    with pytest.raises(ValueError, match="292 years"):
        parse("99999999999h")


@given(st.timedeltas(min_value=timedelta(days=-300), max_value=timedelta(days=3000)))
def test_what_is_written_is_read_back(value: timedelta):
    assert parse(text_of(value)) == value


def test_durations_are_written_as_go_writes_them():
    assert [text_of(timedelta(seconds=each)) for each in (0, 1.5, 90, 5400, -60)] == [
        "0s",
        "1.5s",
        "1m30s",
        "1h30m0s",
        "-1m0s",
    ]
