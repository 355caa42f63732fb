"""Whatever stands in the file, loading it says something and does not raise."""

from __future__ import annotations

import random
from typing import Any

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.settings.keys import all_tables, tables_of
from fleet.settings.loading import loads
from fleet.settings.pools import PoolSettings
from fleet.settings.showing import as_json, as_toml
from fleet.settings.upstream import NOT_COVERED

ENV = {"HOME": "/nonexistent", "TZ": "UTC"}
ODD: tuple[Any, ...] = (
    *(0, -1, 1, 2**62, 1.5, True, "", "x", "host", "1m", "ssh", "static", "instance", "shell", "local", "$NOPE"),
    *(
        "* * * * *",
        "* * 31 2 *",
        "https://a",
        "bash",
        [],
        ["x"],
        ["* * * * *"],
        [1, "x"],
        [{"name": "a"}],
        {},
        {"x": 1},
    ),
)


def table(names: tuple[str, ...], chance: random.Random) -> dict[str, Any]:
    """Some keys of a table, known and unknown, mostly with values that make no sense."""
    found: dict[str, Any] = {"url": "https://a", "executor": chance.choice(["instance", "ssh", "shell"])}
    found = found if names == ("runners",) else {}
    children = [path[-1] for path in all_tables() if path and path[:-1] == names]
    known = [*tables_of(all_tables()[names]), *NOT_COVERED.get(names, ()), *children, "unknwon"]
    for key in chance.sample(known, k=chance.randint(0, min(8, len(known)))):
        below = (*names, key)
        if below in all_tables() and chance.random() < 0.9:
            made = table(below, chance)
            found[key] = [made, table(below, chance)] if chance.random() < 0.5 or key == "runners" else made
        else:
            found[key] = chance.choice(ODD)
    return found


@settings(max_examples=120)
@given(st.randoms(use_true_random=False))
def test_any_table_with_any_value(chance: random.Random):
    text = tomlkit.dumps(table((), chance))
    loaded = loads(text.encode(), "/nonexistent/c.toml", ENV)
    assert (loaded.settings is None) == any(each.severity == "error" for each in loaded.problems)
    assert all(each.line is None or 1 <= each.line <= text.count("\n") + 1 for each in loaded.problems)
    if loaded.settings is not None:
        assert as_json(loaded.settings)
        assert as_toml(loaded.settings)


BASE: dict[str, Any] = {
    "concurrent": 4,
    "fleet": {"on_term": "leave", "agent_timeout": "1h"},
    "runners": [
        {
            "url": "https://a",
            "id": 1,
            "token": "t",
            "executor": "instance",
            "autoscaler": {
                "plugin": "local",
                "max_instances": 3,
                "fleet": {"pool": "p"},
                "plugin_config": {"hosts": ["h"]},
                "policy": [{"idle_count": 1}, {"periods": ["* 8 * * *"], "timezone": "Europe/Berlin"}],
                "placements": [{"name": "a", "zone": "z"}, {"name": "b"}],
                "connector_config": {"username": "u", "protocol": "ssh"},
            },
        },
        {"url": "https://a", "id": 2, "token": "t", "executor": "instance", "autoscaler": {"fleet": {"pool": "p"}}},
        {"url": "https://a", "id": 3, "token": "t", "executor": "ssh", "ssh": {"host": "h", "port": "22"}},
        {"url": "https://a", "id": 4, "token": "t", "executor": "shell"},
    ],
}


def spoiled(value: Any, chance: random.Random, rate: float) -> Any:
    """A copy in which some keys are gone and some values are others."""
    if chance.random() < rate:
        return chance.choice(ODD)
    if isinstance(value, dict):
        return {key: spoiled(each, chance, rate) for key, each in value.items() if chance.random() > rate / 2}
    if isinstance(value, list):
        return [spoiled(each, chance, rate) for each in value]
    return value


@settings(max_examples=120)
@given(st.randoms(use_true_random=False))
def test_a_good_file_with_a_few_wrong_places(chance: random.Random):
    try:
        text = tomlkit.dumps(spoiled(BASE, chance, 0.03))
    except (TypeError, ValueError, AttributeError):  # what TOML has no words for cannot stand in a file
        text = ""
    loaded = loads(text.encode(), "/nonexistent/c.toml", ENV)
    assert (loaded.settings is None) == any(each.severity == "error" for each in loaded.problems)
    if loaded.settings is not None:
        assert {each.pool for each in loaded.settings.runners} == set(loaded.settings.pool_by_name)
        assert as_json(loaded.settings)
        for pool in loaded.settings.pools:
            assert PoolSettings.from_store(pool.to_store()).limits() == pool.limits()


@given(st.binary(max_size=60) | st.text("[]{}=\"'.#\n ab1-:\\", max_size=60).map(str.encode))
def test_any_bytes(content: bytes):
    loaded = loads(content, "/nonexistent/c.toml", ENV)
    assert loaded.settings is not None or loaded.lines()
