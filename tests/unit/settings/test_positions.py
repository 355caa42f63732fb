from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from fleet.settings.positions import Path, scan

TEXT = '''# first
concurrent = 4 # comment with "quotes" and = signs
labels = { team = "a", "odd key" = "b" }

[[runners]]
  name = "one"
  environment = [
    "A=1", # a comment with ]
    "B=]2",
  ]
  pre_build_script = """
[[runners]]
name = "not a key"
\\""" still text"""
  [runners.autoscaler]
    plugin_config.name = 'group'
    [[runners.autoscaler.policy]]
      idle_count = 1
    [[runners.autoscaler.policy]]
      idle_time = "5m"

[ "runners" . custom_build_dir ]
enabled = true

[[runners]]
token_expires_at = 2025-01-31 12:00:00Z # space inside
name = "two"
inline = [{ a = 1 }, { a = 2 }]
literal = \'\'\'it''s'\'\'\'\'
'''


def line(path: Path) -> int | None:
    return scan(TEXT).line(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("concurrent",), 2),
        (("labels", "odd key"), 3),
        (("runners", 0), 5),
        (("runners", 0, "environment", 1), 9),
        (("runners", 0, "autoscaler"), 15),
        (("runners", 0, "autoscaler", "plugin_config", "name"), 16),
        (("runners", 0, "autoscaler", "policy", 0, "idle_count"), 18),
        (("runners", 0, "autoscaler", "policy", 1, "idle_time"), 20),
        (("runners", 0, "custom_build_dir", "enabled"), 23),
        (("runners", 1), 25),
        (("runners", 1, "name"), 27),
        (("runners", 1, "inline", 1, "a"), 28),
        (("runners", 1, "literal"), 29),
    ],
)
def test_each_key_has_its_line(path: Path, expected: int):
    assert line(path) == expected


def test_a_missing_key_has_the_line_of_its_table():
    assert line(("runners", 1, "url")) == 25
    assert line(("runners", 0, "autoscaler", "policy", 1, "timezone")) == 19
    assert line(("nothing",)) is None


def test_value_spans_are_exactly_the_values():
    found = scan(TEXT).values
    for path, expected in leaves(tomllib.loads(TEXT)):
        span = found[path]
        assert tomllib.loads("x = " + TEXT[span.start : span.end])["x"] == expected


def leaves(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in leaves(each, (*path, key))]
    if isinstance(value, list):
        return [leaf for number, each in enumerate(value) for leaf in leaves(each, (*path, number))]
    return [(path, value)]


values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text("ab.\"' #=[", min_size=1, max_size=4), values, max_size=4))
def test_any_document_is_walked_to_its_end(document: dict[str, Any]):
    text = tomlkit.dumps(document)
    found = scan(text)
    for path, expected in leaves(tomllib.loads(text)):
        span = found.values[path]
        assert tomllib.loads("x = " + text[span.start : span.end])["x"] == expected
