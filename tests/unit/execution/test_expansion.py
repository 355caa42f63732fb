from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.execution.expansion import ExpansionTooLarge, expand

KNOWN = {"A": "one", "B_2": "$A", "EMPTY": "", "with-dash": "dashed", "PERCENT": "%A%"}


def expanded(text: str) -> str:
    return expand(text, KNOWN.get, limit=10_000)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A ${A} %A%", "one one one"),
        ("$$A and $$", "$A and $"),
        ("$$$A", "$one"),
        ("$B_2 $PERCENT", "$A %A%"),  # what was put in is not looked at again
        ("<$UNKNOWN${UNKNOWN}>", "<>"),
        ("%UNKNOWN% and date +%Y%m%d", "%UNKNOWN% and date +%Y%m%d"),
        ("%UNKNOWN%A%", "%UNKNOWNone"),
        ("${with-dash} $with-dash", "dashed -dash"),
        ("$A_ $A.x", " one.x"),
        ("a$", "a$"),
        ("$ $( ${", "$ $( ${"),
        ("${unclosed $A", "${unclosed one"),
        ("$1$@$?$*$#$!x", "x"),
        ("${}", ""),
        ("100%", "100%"),
        ("", ""),
    ],
)
def test_a_reference_becomes_its_value(text: str, result: str) -> None:
    assert expanded(text) == result


@given(st.text(alphabet=st.characters(exclude_characters="$%")))
def test_a_text_without_references_stays(text: str) -> None:
    assert expanded(text) == text


@given(st.text(alphabet="$%{}AB_2 -x", max_size=60))
def test_dollars_doubled_give_the_text_back(text: str) -> None:
    assert expand(text.replace("$", "$$"), lambda _: None, limit=10_000) == text


@given(st.lists(st.sampled_from(["$A", "${A}", "%A%", "x", " ", "$$"]), max_size=30))
def test_pieces_expand_one_by_one(pieces: list[str]) -> None:
    text = " ".join(pieces)
    assert expanded(text) == " ".join(expanded(piece) for piece in pieces)


@pytest.mark.parametrize("piece", ["$", "${", "%A", "$A", "${A", "%A%", "$$", "${A}"])
def test_time_is_linear_in_the_text(piece: str) -> None:
    began = time.perf_counter()
    expand(piece * 200_000, KNOWN.get, limit=10_000_000)
    assert time.perf_counter() - began < 20


def test_what_would_grow_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ExpansionTooLarge):
        expand("$A" * 1000, {"A": "x" * 1000}.get, limit=100_000)
    assert len(expand("$A" * 100, {"A": "x" * 1000}.get, limit=100_000)) == 100_000


def test_a_lookup_gets_the_names_only() -> None:
    asked: list[str] = []

    def note(name: str) -> str | None:
        asked.append(name)
        return None

    expand("$A${b c}%D%", note, limit=100)
    assert asked == ["A", "b c", "D"]
    assert all(re.fullmatch(r"[\w ]+", name) for name in asked)
