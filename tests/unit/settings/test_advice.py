"""Warnings about a configuration that works, but perhaps not as its author thinks."""

from __future__ import annotations

import pytest

POOL = """
[fleet]
database = "{database}"
[[runners]]
url = "https://gitlab.example"
id = 1
token = "word"
executor = "instance"
  [runners.autoscaler]
  plugin = "local"
  max_instances = 2
    [[runners.autoscaler.policy]]
    idle_count = 1
    [[runners.autoscaler.policy]]
    periods = ["* 8-18 * * mon-fri"]
    idle_count = 2
    {zone}
"""


@pytest.mark.parametrize(
    ("database", "zone", "is_said"),
    [
        ("postgresql://db/fleet", "", True),
        ("postgresql://db/fleet", 'timezone = "Europe/Berlin"', False),
        ("fleet.sqlite", "", False),
    ],
)
def test_a_period_without_a_zone_is_named_where_managers_share_a_store(load_text, database, zone, is_said):
    found = load_text(POOL.format(database=database, zone=zone))
    assert found.settings is not None
    said = [line for line in found.lines() if "policy[1].timezone" in line]
    assert bool(said) is is_said
