"""GitLab Runner's keys that are not covered are warned of once each, by name, and are never mistaken for errors."""

from __future__ import annotations

import pytest
import tomlkit

from fleet.settings.keys import all_tables, tables_of
from fleet.settings.upstream import INSIDE, NOT_COVERED

ENTRY = {"url": "https://a", "id": 1, "token": "t", "executor": "shell", "user": "builder"}
CASES = [(names, key) for names, keys in NOT_COVERED.items() for key in keys]


@pytest.mark.parametrize(("names", "key"), CASES)
def test_each_key_that_is_not_covered_is_warned_of_once(load_text, names: tuple[str, ...], key: str):
    inside = INSIDE.get((*names, key), "scalar")
    value = 1 if inside == "scalar" else dict.fromkeys(sorted(inside or {"anything"}), "x")
    table = {key: value}
    for name in reversed(names[1:]):
        table = {name: table}
    document = {"runners": [{**ENTRY, **table}]} if names else {**table, "runners": [ENTRY]}
    loaded = load_text(tomlkit.dumps(document))
    assert loaded.errors == ()
    where = ".".join(("runners[0]", *names[1:], key) if names else (key,))
    assert [each.key for each in loaded.warnings if each.key != "runners[0].autoscaler"] == [where]


def test_no_key_is_both_covered_and_not():
    for names, keys in NOT_COVERED.items():
        assert not set(keys) & set(tables_of(all_tables()[names]))


def test_every_table_that_is_looked_into_is_one_that_is_not_covered():
    for names in INSIDE:
        above = NOT_COVERED.get(names[:-1]) or INSIDE[names[:-1]]
        assert names[-1] in above
