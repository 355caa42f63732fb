"""Which pools there are, who shares them, and which change outdates their machines."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fleet.settings.pools import PoolKind, PoolSettings, bare_plugin, fingerprint_after, outdated_by


def runner(number: int, rest: str, executor: str = "instance") -> str:
    return f"""
[[runners]]
name = "r{number}"
url = "https://gitlab.example.com"
id = {number}
token = "t"
executor = "{executor}"
{rest}
"""


POOL = """
[runners.autoscaler]
plugin = "local"
max_instances = 4
[runners.autoscaler.plugin_config]
image = "a"
[runners.autoscaler.fleet]
pool = "linux"
max_age = "24h"
agent_timeout = "30m"
[[runners.autoscaler.placements]]
name = "a"
zone = "z1"
instance_type = "m5"
spot = true
[[runners.autoscaler.placements]]
name = "b"
zone = "z2"
max_instances = 2
"""
SHARED = '[runners.autoscaler.fleet]\npool = "linux"'


def pool_of(load_text, text: str) -> PoolSettings:
    loaded = load_text(text)
    assert loaded.errors == ()
    [pool] = loaded.settings.pools
    return pool


@pytest.mark.parametrize(
    ("written", "bare"),
    [
        ("aws", "aws"),
        ("aws:latest", "aws"),
        ("aws:0.5.0", "aws"),
        ("fleeting-plugin-aws", "aws"),
        ("/usr/local/bin/fleeting-plugin-azure", "azure"),
        ("registry.gitlab.com/gitlab-org/fleeting/plugins/googlecloud:1", "gcp"),
        ("registry.example.com:5000/p/hetzner@sha256:00", "hetzner"),
    ],
)
def test_plugin_names_of_gitlab_runner_become_bare_names(written: str, bare: str):
    assert bare_plugin(written) == bare


def test_a_second_runner_shares_a_pool_by_naming_it_even_before_its_definition(load_text):
    settings = load_text(runner(1, SHARED) + runner(2, POOL) + runner(3, POOL)).settings
    [pool] = settings.pools
    assert pool.name == "linux"
    assert sorted(pool.runners) == [each.key for each in settings.runners]
    assert {each.pool for each in settings.runners} == {"linux"}
    assert (pool.fleet.agent_timeout, pool.fleet.unreachable_timeout) == (timedelta(minutes=30), timedelta(minutes=10))


def test_a_pool_lives_while_one_of_its_runners_does(load_text):
    broken = runner(1, POOL).replace("executor", 'shell = "fish"\n  executor')
    settings = load_text(broken + runner(2, SHARED)).settings
    assert [each.name for each in settings.pools] == ["linux"]
    assert [each.pool for each in settings.stopped] == ["linux"]


def test_placements_have_limits_and_scopes(load_text):
    pool = pool_of(load_text, runner(1, POOL))
    first, second = pool.limits().placements
    assert first.scopes[:3] == ("placement:linux/a", "zone:local/z1", "type:local/m5")
    assert (second.name, second.max_instances) == ("b", 2)
    assert pool.placement_tables[0] == {"name": "a", "spot": True, "zone": "z1", "instance_type": "m5"}
    assert pool.limits().max_age == timedelta(hours=24)


def test_jobs_on_this_host_share_one_pool_as_large_as_concurrent(load_text):
    settings = load_text("concurrent = 7\n" + runner(1, "", "shell") + runner(2, "", "shell")).settings
    [pool] = settings.pools
    assert (pool.name, pool.kind, pool.capacity_per_instance) == ("host", PoolKind.HOST, 7)
    assert pool.limits().fixed_inventory
    assert len(pool.runners) == 2


def test_the_name_host_is_taken(load_text):
    loaded = load_text(runner(1, POOL.replace('"linux"', '"host"')))
    assert "use another name" in loaded.errors[0].message


def test_executor_ssh_is_a_static_pool_of_one_host(load_text, tmp_path):
    (tmp_path / "key").write_text("k")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text("")
    table = '[runners.ssh]\nhost = "10.0.0.5"\nport = "2222"\nuser = "ci"\npassword = "pw"\nidentity_file = "key"\n'
    pool = pool_of(load_text, "concurrent = 3\n" + runner(1, table, "ssh"))
    assert (pool.name, pool.kind, pool.plugin) == ("https://gitlab.example.com|1", PoolKind.STATIC, "static")
    assert pool.plugin_config == {"hosts": [{"name": "10.0.0.5", "address": "10.0.0.5", "port": 2222}]}
    connector = pool.connector_config
    assert (connector.username, connector.password.get_secret_value()) == ("ci", "pw")
    assert connector.key_path == str(tmp_path / "key")
    assert pool.fleet.known_hosts_file == str(tmp_path / ".ssh/known_hosts")
    assert (pool.fleet.trust_on_first_use, pool.capacity_per_instance) == (False, 3)
    more = (
        table + 'disable_strict_host_key_checking = true\n[runners.autoscaler.fleet]\npool = "old box"\nsudo = false\n'
    )
    pool = pool_of(load_text, runner(1, more, "ssh"))
    assert (pool.name, pool.fleet.trust_on_first_use, pool.fleet.sudo) == ("old box", True, False)


def test_executor_ssh_without_host_or_with_a_missing_key_is_stopped(load_text):
    assert "name the host" in load_text(runner(1, "[runners.ssh]\nuser = 'x'", "ssh")).errors[0].message
    loaded = load_text(runner(1, "[runners.ssh]\nhost = 'h'\nidentity_file = '/none'", "ssh"))
    assert (loaded.errors[0].key, loaded.errors[0].line) == ("runners[0].ssh.identity_file", 10)
    assert "[runners.ssh] with host" in load_text(runner(1, "", "ssh")).errors[0].message
    assert "[runners.autoscaler]" in load_text(runner(1, "")).errors[0].message


def test_executor_ssh_takes_a_static_pool_of_several_hosts(load_text):
    table = """
[runners.autoscaler]
plugin = "static"
[runners.autoscaler.plugin_config]
hosts = ["ci@a:22", { address = "b", port = 2222 }]
"""
    pool = pool_of(load_text, runner(1, table, "ssh"))
    assert pool.fixed_inventory
    assert len(pool.plugin_config["hosts"]) == 2


def test_a_renamed_pool_leaves_its_old_name(load_text):
    renamed = POOL.replace('pool = "linux"', 'pool = "new"\nrenamed_from = "linux"')
    assert load_text(runner(1, renamed)).settings.pools[0].fleet.renamed_from == "linux"
    assert "still is a pool 'linux'" in load_text(runner(1, renamed) + runner(2, POOL)).errors[0].message


def test_a_pool_survives_the_store(load_text):
    pool = pool_of(load_text, runner(1, POOL))
    again = PoolSettings.from_store(pool.to_store())
    assert again == pool
    assert again.fingerprint() == pool.fingerprint()


@pytest.mark.parametrize(
    ("old", "new", "outdated"),
    [
        ('image = "a"', 'image = "b"', ("plugin_config",)),
        ('plugin = "local"', 'plugin = "local"\ninstance_ready_command = "true"', ("instance_ready_command",)),
        ('zone = "z1"', 'zone = "z3"', ("placements",)),
        ('name = "a"', 'name = "c"', ("placements",)),
        ("max_instances = 4", "max_instances = 5", ()),
        ("max_instances = 2", "weight = 2", ()),
        ('max_age = "24h"', 'max_age = "1h"', ()),
        ('name = "b"', 'name = "b"\nprice_usd_per_hour = 0.1', ()),
        ("max_instances = 2", "max_instances = 2\n[[runners.autoscaler.policy]]\nidle_count = 1", ()),
    ],
)
def test_what_outdates_machines(load_text, old: str, new: str, outdated: tuple[str, ...]):
    before = pool_of(load_text, runner(1, POOL))
    after = pool_of(load_text, runner(1, POOL.replace(old, new, 1)))
    assert before != after
    assert outdated_by(before, after) == outdated
    kept = fingerprint_after(before, "stored", after)
    assert (kept == "stored") is (not outdated)


def test_an_added_placement_outdates_nothing_until_it_is_taken_away_again(load_text):
    before = pool_of(load_text, runner(1, POOL))
    first = fingerprint_after(None, None, before)
    more = pool_of(load_text, runner(1, POOL + '[[runners.autoscaler.placements]]\nname = "c"\n'))
    second = fingerprint_after(before, first, more)
    assert second == first
    assert fingerprint_after(more, second, before) != first


def test_given_machines_are_never_outdated(load_text):
    table = '[runners.autoscaler]\nplugin = "static"\nplugin_config.hosts = ["{}"]'
    before = pool_of(load_text, runner(1, table.format("a")))
    after = pool_of(load_text, runner(1, table.format("b")))
    assert outdated_by(before, after) == ()
