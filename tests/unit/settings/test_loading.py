"""What a good file becomes: GitLab Runner's own words, its defaults and oddities, and ours."""

from __future__ import annotations

import pathlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from fleet.settings.environment import (
    Overrides,
    config_path,
    local_timezone,
    overrides,
    state_dir,
    system_id_path,
)
from fleet.settings.loading import load
from fleet.settings.manager import LogFormat, LogLevel, OnTerm, without_password
from fleet.settings.runner import RunnerSettings, short_token

UPSTREAM = """
# written by hand, for GitLab Runner
concurrent = 40
check_interval = 0
log_level = "warn"
log_format = "json"
listen_address = ":9252"
connection_max_age = "10m0s"
shutdown_timeout = 600
user = "ci"
labels = { site = "north", team = "a" }

[session_server]
  session_timeout = 1800

[[runners]]
  name = "linux builders"
  url = "https://gitlab.example.com/"
  id = 12
  token = "${TOKEN_A}"
  token_obtained_at = 2025-01-01T00:00:00Z
  token_expires_at = 0001-01-01T00:00:00Z
  limit = 0
  request_concurrency = 4
  strict_check_interval = true
  output_limit = 8192
  unhealthy_requests_limit = 0
  unhealthy_interval = "1h0m0s"
  job_status_final_update_retry_limit = 5
  prepare_timeout = "10m"
  get_sources_timeout = "0s"
  executor = "instance"
  shell = ""
  builds_dir = "/builds"
  cache_dir = ""
  clone_url = "https://gitlab.internal"
  environment = ["GIT_DEPTH=10", "EMPTY="]
  pre_build_script = '''
echo before
'''
  debug_trace_disabled = true
  clean_git_config = false
  safe_directory_checkout = true
  labels = { team = "b" }
  [runners.feature_flags]
    FF_SCRIPT_SECTIONS = true
  [runners.custom_build_dir]
    enabled = true
  [runners.cache]
    Type = "s3"
    [runners.cache.s3]
      BucketName = "cache"
  [runners.instance]
    use_common_build_dir = true
  [runners.autoscaler]
    plugin = "registry.gitlab.com/gitlab-org/fleeting/plugins/aws:1.0.0"
    capacity_per_instance = 1
    max_use_count = 1
    max_instances = 20
    instance_ready_command = "cloud-init status --wait"
    instance_acquire_timeout = "0s"
    update_interval = "30s"
    delete_instances_on_shutdown = true
    reservation_throttling = false
    instance_creation_time_buckets = [1, 2.5, 5]
    [runners.autoscaler.scale_throttle]
      limit = 2
    [runners.autoscaler.plugin_config]
      name = "ci-asg"
      region = "eu-central-1"
      odd = [{ a = 1 }]
    [runners.autoscaler.connector_config]
      username = "ubuntu"
      password = "hunter22"
      use_external_addr = true
      keepalive = "0s"
    [[runners.autoscaler.policy]]
      idle_count = 0
      idle_time = "10m0s"
    [[runners.autoscaler.policy]]
      periods = ["* 7-18 * * mon-fri"]
      timezone = "Europe/London"
      idle_count = 4
      idle_time = "20m0s"
      scale_factor = 2
      scale_factor_limit = 8
"""


def test_gitlab_runners_own_file_is_accepted_as_it_is(load_text):
    loaded = load_text(UPSTREAM, {"TOKEN_A": "t-1"})
    assert loaded.errors == ()
    assert loaded.warnings == ()
    settings = loaded.settings
    assert (settings.global_.concurrent, settings.global_.check_interval) == (40, 3)
    assert settings.global_.log_level is LogLevel.WARNING
    assert settings.global_.connection_max_age == timedelta(minutes=10)
    [runner] = settings.runners
    assert (runner.key, runner.url) == ("https://gitlab.example.com|12", "https://gitlab.example.com")
    assert (runner.token.get_secret_value(), runner.user) == ("t-1", "ci")
    assert runner.token_obtained_at == datetime(2025, 1, 1, tzinfo=UTC)
    assert runner.token_expires_at is None, "the year 1 is how Go writes that there is none"
    assert runner.output_limit_bytes == 8192 * 1024
    assert (runner.unhealthy_requests_limit, runner.prepare_timeout, runner.get_sources_timeout) == (
        3,
        timedelta(minutes=10),
        None,
    )
    assert (runner.shell, runner.cache_dir, runner.clean_git_config) == (None, None, False)
    assert runner.labels == {"site": "north", "team": "b"}
    assert runner.environment == ("GIT_DEPTH=10", "EMPTY=")


def test_its_autoscaler_becomes_a_pool_that_planning_reads(load_text):
    [pool] = load_text(UPSTREAM, {"TOKEN_A": "t-1"}).settings.pools
    assert (pool.name, pool.plugin, pool.line) == ("https://gitlab.example.com|12", "aws", 55)
    assert pool.instance_acquire_timeout == timedelta(minutes=15)
    assert pool.connector_config.keepalive == timedelta(seconds=30)
    limits = pool.limits(settings_version=7, account="111")
    assert (limits.settings_version, limits.max_instances, limits.throttle.per_s, limits.throttle.burst) == (
        7,
        20,
        2,
        20,
    )
    assert [each.timezone for each in limits.policies] == ["Europe/Berlin", "Europe/London"]
    assert limits.policies[1].idle_time == timedelta(minutes=20)
    [placement] = limits.placements
    assert placement.scopes == (
        "placement:https://gitlab.example.com|12/default",
        "region:aws/eu-central-1",
        "account:aws/111",
        "credentials:aws/111",
    )


def test_an_empty_file_has_defaults_and_says_that_nothing_runs(load_text, tmp_path: pathlib.Path):
    loaded = load_text("")
    assert [each.message for each in loaded.problems] == [
        "there is no [[runners]] entry: nothing will run; add one with fleetctl register"
    ]
    assert loaded.settings.global_.concurrent == 1
    assert loaded.settings.fleet.on_term is OnTerm.LEAVE
    assert loaded.settings.fleet.api_listen == "127.0.0.1:9253"


def test_paths_start_at_the_directory_of_the_file(load_text, tmp_path: pathlib.Path):
    fleet = load_text('[fleet]\nstate_dir = "state"\ndatabase = "db/fleet.sqlite"\n').settings.fleet
    assert fleet.state_dir == str(tmp_path / "state")
    assert fleet.spool_dir == str(tmp_path / "state/spool")
    assert fleet.secret_key_file == str(tmp_path / "state/secret.key")
    assert fleet.database.get_secret_value() == f"sqlite:///{tmp_path}/db/fleet.sqlite"
    assert not fleet.secret_key_named


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("sqlite:////srv/f.db", "sqlite:////srv/f.db"),
        ("/srv/f.db", "sqlite:////srv/f.db"),
        ("postgresql://u:$PW@h/n", "postgresql+psycopg://u:s3cret@h/n"),
        ("postgres://u@h/n", "postgresql+psycopg://u@h/n"),
    ],
)
def test_database_addresses(load_text, written: str, url: str):
    fleet = load_text(f'[fleet]\ndatabase = "{written}"\n', {"PW": "s3cret"}).settings.fleet
    assert fleet.database.get_secret_value() == url
    assert "s3cret" not in repr(fleet)
    assert without_password(url) == url.replace("s3cret", "***")


def test_the_secret_key_comes_from_the_environment_first(load_text):
    fleet = load_text('[fleet]\nsecret_key_file = "none"\n', {"FLEET_SECRET_KEY": "k"}).settings.fleet
    assert fleet.secret_key.get_secret_value() == "k"


def test_command_line_beats_environment_beats_file(load_text):
    text = 'log_level = "error"\nlisten_address = ":1"\n[fleet]\non_term = "abort"\n'
    env = {"LOG_LEVEL": "debug", "LISTEN_ADDRESS": "localhost"}
    said = overrides(env, log_level_flag="trace", on_term_flag="drain")
    settings = load_text(text, env, overrides=said).settings
    assert settings.global_.log_level is LogLevel.TRACE
    assert settings.global_.listen_address == "localhost:9252"
    assert settings.fleet.on_term is OnTerm.DRAIN
    assert load_text(text, overrides=Overrides()).settings.global_.log_level is LogLevel.ERROR
    assert overrides({"RUNNER_DEBUG": "true", "LOG_FORMAT": "json"}) == Overrides(
        log_level=LogLevel.DEBUG, log_format=LogFormat.JSON
    )


def test_where_files_are(tmp_path: pathlib.Path):
    assert config_path("a.toml", {"CONFIG_FILE": "b.toml"}) == pathlib.Path("a.toml")
    assert config_path(None, {"CONFIG_FILE": "b.toml"}) == pathlib.Path("b.toml")
    assert system_id_path(tmp_path / "config.toml") == tmp_path / ".runner_system_id"
    assert state_dir({"STATE_DIRECTORY": "/var/lib/x:/var/lib/y"}) == "/var/lib/x"


def test_the_zone_of_this_host(tmp_path: pathlib.Path):
    assert local_timezone({"TZ": ":Asia/Tokyo"}) == "Asia/Tokyo"
    assert local_timezone({"TZ": "/usr/share/zoneinfo/Europe/Paris"}) == "Europe/Paris"
    own = local_timezone({})
    assert ZoneInfo(own).key == own
    assert local_timezone({"TZ": "CET-1CEST"}) == own, "what is no IANA name is not an error of the file"


def test_identity_is_url_and_id_and_never_the_token(load_text):
    text = """
[[runners]]
url = "https://a"
token = "t1"
executor = "shell"
name = "n"
[[runners]]
url = "https://a"
token = "t2"
executor = "shell"
[[runners]]
url = "https://a"
token = "t3"
executor = "shell"
[[runners]]
url = "https://a"
token = "t4"
id = 3
executor = "shell"
"""
    keys = [each.key for each in load_text(text).settings.runners]
    assert keys == ["https://a|name:n", "https://a|entry:1", "https://a|entry:2", "https://a|3"]
    other = load_text(text.replace('"t', '"z')).settings
    assert [each.key for each in other.runners] == keys


def test_a_runner_survives_the_store(load_text):
    [runner] = load_text(UPSTREAM, {"TOKEN_A": "t-1"}).settings.runners
    assert RunnerSettings.from_store(runner.to_store()) == runner
    assert runner.to_store()["token"] == "t-1"


@pytest.mark.parametrize(
    ("prefix", "shown"),
    [("glrt-", "abcdefghi"), ("glrt-t1_", "abcdefghi"), ("GR1348941", "abcdefghi"), ("", "abcdefghi")],
)
def test_what_is_shown_of_a_token(prefix: str, shown: str):
    assert short_token(prefix + "abcdefghijklmn") == shown


def test_a_token_is_renewed_at_three_quarters_of_its_life(load_text):
    text = UPSTREAM.replace("0001-01-01T00:00:00Z", "2025-01-05T00:00:00Z")
    [runner] = load_text(text, {"TOKEN_A": "t"}).settings.runners
    assert runner.rotate_token_at == datetime(2025, 1, 4, tzinfo=UTC)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: pathlib.Path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbfconcurrent = 3\r\n[fleet]\r\nfoo = 1\r\n")
    loaded = load(path, {})
    assert [each.line for each in loaded.errors] == [3]


def test_useful_warnings(load_text):
    text = """
concurrent = 2
[[runners]]
name = "a"
url = "https://a"
id = 1
token = "t"
executor = "instance"
[runners.autoscaler]
plugin = "local"
capacity_per_instance = 2
max_instances = 2
[runners.autoscaler.state_storage]
enabled = true
[[runners.autoscaler.policy]]
periods = ["* 8-9 * * *"]
idle_count = 9
[[runners]]
name = "b"
url = "https://a"
id = 2
token = "t"
limit = 2
executor = "instance"
[runners.instance]
use_common_build_dir = true
[runners.autoscaler]
plugin = "local"
[[runners.autoscaler.policy]]
[[runners]]
name = "c"
url = "https://a"
id = 3
token = "t"
limit = 1
executor = "shell"
"""
    said = [(each.line, each.key.rpartition(".")[2], each.message) for each in load_text(text).warnings]
    expected = [
        (2, "concurrent", "room for 4"),
        (2, "concurrent", "less than the 3 runners"),
        (3, "request_concurrency", "is 1 for a, b"),
        (13, "state_storage", "is not needed"),
        (17, "idle_count", "9 free slots, while the pool has room for 4"),
        (15, "policy", "no policy holds at all times"),
        (27, "max_instances", "nothing limits"),
        (29, "idle_time", "right after its job"),
        (26, "use_common_build_dir", "max_use_count = 1"),
        (30, "user", "are refused"),
    ]
    for (line, key, message), (at, name, part) in zip(said, expected, strict=True):
        assert (line, key) == (at, name)
        assert part in message
