"""What a reload changes, and what it must not take for gone."""

from __future__ import annotations

from fleet.settings.changes import Changes, diff
from fleet.settings.settings import Settings


def runner(number: int, pool: str = "", *, executor: str = "instance", token: str = "t", more: str = "") -> str:
    return f"""
[[runners]]
url = "https://a"
id = {number}
token = "{token}"
executor = "{executor}"
{more}
[runners.autoscaler]
plugin = "local"
plugin_config.image = "one"
max_instances = 2
fleet.pool = "{pool or f"p{number}"}"
"""


def settings(load_text, text: str) -> Settings:
    loaded = load_text(text)
    assert loaded.settings is not None, loaded.lines()
    return loaded.settings


def test_at_the_start_everything_appears(load_text):
    changes = diff(None, settings(load_text, runner(1)))
    assert changes == Changes(runners_appeared=("https://a|1",), pools_appeared=("p1",))


def test_comments_and_order_are_no_change(load_text):
    old = settings(load_text, runner(1) + runner(2))
    new = settings(load_text, "# comment\n\n" + runner(2) + runner(1))
    assert not diff(old, new)


def test_runners_and_pools_come_change_and_go(load_text):
    old = settings(load_text, runner(1) + runner(2) + runner(3))
    new = settings(load_text, runner(2, more="limit = 3") + runner(3).replace("max_instances = 2", "") + runner(4))
    changes = diff(old, new)
    assert changes == Changes(
        runners_appeared=("https://a|4",),
        runners_changed=("https://a|2",),
        runners_retired=("https://a|1",),
        pools_appeared=("p4",),
        pools_changed=("p3",),
        pools_retired=("p1",),
    )


def test_a_new_token_is_a_change_and_not_another_runner(load_text):
    old, new = settings(load_text, runner(1)), settings(load_text, runner(1, token="u"))
    assert diff(old, new) == Changes(runners_changed=("https://a|1",))


def test_machines_of_a_changed_image_are_outdated(load_text):
    old = settings(load_text, runner(1))
    new = settings(load_text, runner(1).replace('"one"', '"two"'))
    assert diff(old, new) == Changes(pools_changed=("p1",), pools_outdated=("p1",))


def test_a_renamed_pool_is_not_retired(load_text):
    old = settings(load_text, runner(1, "before"))
    new = settings(load_text, runner(1, "after").replace("fleet.pool", 'fleet.renamed_from = "before"\nfleet.pool'))
    changes = diff(old, new)
    assert changes.pools_renamed == (("before", "after"),)
    assert (changes.pools_retired, changes.pools_appeared) == ((), ())
    assert changes.runners_changed == ("https://a|1",)


def test_an_entry_that_cannot_run_is_stopped_and_neither_it_nor_its_pool_is_retired(load_text):
    old = settings(load_text, runner(1) + runner(2))
    new = settings(load_text, runner(1, more='tls-ca-file = "/gone"') + runner(2))
    assert diff(old, new) == Changes(runners_stopped=("https://a|1",))
    assert not diff(old, settings(load_text, runner(1) + runner(2)))


def test_changed_keys_of_the_manager_are_named(load_text):
    old = settings(load_text, "concurrent = 2\n[fleet]\ndatabase = 'a.db'\n")
    new = settings(load_text, "concurrent = 3\n[fleet]\ndatabase = 'b.db'\non_term = 'drain'\n")
    changes = diff(old, new)
    assert changes.keys == ("concurrent", "fleet.database", "fleet.on_term")
    assert changes.keys_at_start == ("fleet.database",)
