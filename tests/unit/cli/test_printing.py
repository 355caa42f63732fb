from __future__ import annotations

import json

import pytest

from fleet.cli.printing import Printer, shown

ROWS = [{"a": "one", "b": None}, {"a": "twenty", "b": ["x", "y"]}]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), (0, "0"), (1.50, "1.5"), ([], "-"), (["a", 2], "a, 2"), ("x", "x")]
)
def test_a_value_reads_well(value, text) -> None:
    assert shown(value) == text


def test_a_table_into_a_pipe_has_aligned_columns(capsys) -> None:
    Printer().table(ROWS, {"a": "A", "b": "B"}, empty="nothing")
    assert capsys.readouterr().out == "A       B\none     -\ntwenty  x, y\n"


def test_an_empty_table_is_said_to_people_alone(capsys) -> None:
    Printer().table([], {"a": "A"}, empty="there are none")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "there are none\n")
    Printer(as_json=True).table([], {"a": "A"}, empty="there are none")
    assert json.loads(capsys.readouterr().out) == []


def test_json_holds_every_key_and_not_the_shown_ones_alone(capsys) -> None:
    Printer(as_json=True).table([{"a": 1, "more": 2}], {"a": "A"}, empty="")
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "more": 2}]
