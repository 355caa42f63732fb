"""The labels of a runner are looked at before GitLab is asked."""

from __future__ import annotations

import pytest

from fleet.settings.labels import problem_with


@pytest.mark.parametrize("key", ["ab", "-abc", ".abc", "a b c", "a" * 66, "ümlaut", "abc\n"])
def test_a_bad_label_key_is_named(key):
    assert repr(key) in (problem_with({key: "x"}) or "")


@pytest.mark.parametrize("value", ["", "a b", "a" * 257, "x\n"])
def test_a_bad_label_value_is_named_by_its_key(value):
    assert "'zone'" in (problem_with({"zone": value}) or "")


def test_labels_are_32_at_most():
    assert problem_with({f"key{n}": "x" for n in range(32)}) is None
    assert "33" in (problem_with({f"key{n}": "x" for n in range(33)}) or "")


def test_a_runner_with_a_label_that_gitlab_refuses_is_stopped_and_its_own_label_wins_over_the_general_one(load_text):
    found = load_text(
        """
[labels]
zone = "general"
tier = "one"
[[runners]]
url = "https://gitlab.example"
id = 1
token = "word"
executor = "shell"
[runners.labels]
zone = "own"
[[runners]]
url = "https://gitlab.example"
id = 2
token = "word"
executor = "shell"
[runners.labels]
x = "too short"
"""
    )
    assert found.settings is not None
    assert [runner.labels for runner in found.settings.runners] == [{"zone": "own", "tier": "one"}]
    assert any("labels" in line and "'x'" in line for line in found.lines())
