"""Every bad input gets a clear message: file, line, key, and what to do."""

from __future__ import annotations

import pathlib

import pytest

from fleet.settings.loading import load
from fleet.settings.problems import Severity

RUNNER = """
[[runners]]
  name = "one"
  url = "https://gitlab.example.com"
  id = 1
  token = "secret-token"
  executor = "instance"
"""
POOL = """
  [runners.autoscaler]
    plugin = "local"
    max_instances = 1
"""


def errors(loaded) -> list[str]:
    return [each.render("F") for each in loaded.problems if each.severity is Severity.ERROR]


def stops(loaded) -> list[str]:
    return [each.render("F") for each in loaded.problems if each.severity is Severity.ENTRY_ERROR]


def warnings(loaded) -> list[str]:
    return [each.render("F") for each in loaded.warnings]


def test_unknown_key_names_file_line_key_and_nearest_key(load_text):
    loaded = load_text(RUNNER + POOL + "    max_instance = 3\n")
    assert loaded.settings is None
    [line] = loaded.lines()
    assert line == (
        f"{loaded.path}:12: error: runners[0].autoscaler.max_instance: unknown key; did you mean 'max_instances'?"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("concurent = 1", "F:1: error: concurent: unknown key; did you mean 'concurrent'?"),
        ("max_instances = 1", "F:1: error: max_instances: unknown key; it belongs in [runners.autoscaler]"),
        ("idle_count = 1", "F:1: error: idle_count: unknown key; it belongs in [[runners.autoscaler.policy]]"),
        ("[fleet]\ndatabse = 'x'", "F:2: error: fleet.databse: unknown key; did you mean 'database'?"),
        ("[runnner]\nx = 1", "F:1: error: runnner: unknown key; did you mean 'runners'?"),
        ("[fleet]\nzzz = 1", "F:2: error: fleet.zzz: unknown key"),
    ],
)
def test_unknown_keys_anywhere_are_errors(load_text, text: str, expected: str):
    assert errors(load_text(text)) == [expected]


def test_unknown_keys_of_containers_are_errors_and_what_has_no_effect_is_told(load_text):
    loaded = load_text(RUNNER + POOL + '  [runners.docker]\n    imagee = "alpine"\n    isolation = "hyperv"\n')
    assert errors(loaded) == ["F:13: error: runners[0].docker.imagee: unknown key; did you mean 'image'?"]
    assert [each.key for each in loaded.problems if "has no effect" in each.message] == ["runners[0].docker.isolation"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("concurrent = '4'", "F:1: error: concurrent: must be a whole number, not a text"),
        ("concurrent = 4.5", "F:1: error: concurrent: must be a whole number, not a number"),
        ("concurrent = true", "F:1: error: concurrent: must be a whole number, not true or false"),
        ("concurrent = 0", "F:1: error: concurrent: must be 1 or more"),
        ("log_level = 'loud'", "F:1: error: log_level: is not a log level: use one of error, warning"),
        ("log_format = 'xml'", "F:1: error: log_format: must be one of 'runner', 'text' or 'json', not a text"),
        ("listen_address = 'a b:c'", "F:1: error: listen_address: 'a b:c' is not an address: write host:port"),
        ("fleet = 3", "F:1: error: fleet: must be a table, not a whole number"),
        ("[runners]\nname = 'x'", "F:1: error: runners: must be [[runners]], not a table: use double brackets"),
        ("runners = [1]", "F:1: error: runners[0]: must be a table, not a whole number"),
        ("[fleet]\non_term = 'die'", "F:2: error: fleet.on_term: must be one of 'leave', 'abort' or 'drain'"),
        ("[fleet]\nagent_timeout = '0s'", "F:2: error: fleet.agent_timeout: must be longer than 0"),
        ("[fleet]\ndatabase = 'mysql://x/y'", "F:2: error: fleet.database: must be a path, sqlite:///path or"),
        ("[fleet]\ndatabase = ':memory:'", "F:2: error: fleet.database: must name a file"),
        ("[fleet]\ndatabase = 'postgresql://$PW@h/n'", "F:2: error: fleet.database: names the variable $PW, which"),
        ("[fleet]\napi_listen = '0.0.0.0:1'", "F:2: error: fleet.api_listen: others than this host can reach it"),
        ("[[runners]]\nexecutor = 'shell'", "F:1: error: runners[0].url: is missing: it must be set"),
        ("[[runners]]\nurl = 'http://x'", "F:1: error: runners[0].executor: is missing: it must be set"),
    ],
)
def test_wrong_values_say_what_is_wanted(load_text, text: str, expected: str):
    loaded = load_text(text)
    assert loaded.settings is None
    [found] = errors(loaded)
    assert found.startswith(expected)


@pytest.mark.parametrize("value", ['"5 m"', "300", '"1d"', "true", '""'])
def test_bad_duration_shows_how_to_write_one(load_text, value: str):
    [found] = errors(load_text(RUNNER + POOL + f"    update_interval = {value}\n"))
    assert found.startswith("F:12: error: runners[0].autoscaler.update_interval: ")
    assert '"90s"' in found


@pytest.mark.parametrize("period", ["bogus", "* * * *", "* * * * * *", "61 * * * *", "* * * foo *", ""])
def test_bad_cron_names_the_period(load_text, period: str):
    text = RUNNER + POOL + f'    [[runners.autoscaler.policy]]\n      idle_count = 1\n      periods = ["{period}"]\n'
    [found] = errors(load_text(text))
    assert found.startswith("F:14: error: runners[0].autoscaler.policy[0].periods[0]: ")
    assert "five" in found


def test_bad_time_zone_names_the_key(load_text):
    text = RUNNER + POOL + '    [[runners.autoscaler.policy]]\n      idle_count = 1\n      timezone = "Mars/Base"\n'
    [found] = errors(load_text(text))
    assert found.startswith("F:14: error: runners[0].autoscaler.policy[0].timezone: ")


def test_policy_that_can_never_match_is_warned_of_and_left_out(load_text):
    text = (
        RUNNER
        + POOL
        + (
            "    [[runners.autoscaler.policy]]\n      idle_count = 1\n"
            '    [[runners.autoscaler.policy]]\n      idle_count = 1\n      periods = ["* * 31 2 *", "* * 30 2 *"]\n'
        )
    )
    loaded = load_text(text)
    at = "runners[0].autoscaler.policy[1]"
    why = "never matches: no such day in these months; it is left out"
    assert [each for each in warnings(loaded) if "never" in each] == [
        f"F:16: warning: {at}.periods[0]: '* * 31 2 *' {why}",
        f"F:16: warning: {at}.periods[1]: '* * 30 2 *' {why}",
        f"F:14: warning: {at}: this policy can never hold: none of its periods matches",
    ]
    assert [each.periods for each in loaded.settings.pools[0].policies] == [("* * * * *",)]


def test_policy_behind_one_that_always_matches_is_warned_of(load_text):
    text = (
        RUNNER
        + POOL
        + (
            '    [[runners.autoscaler.policy]]\n      idle_count = 1\n      periods = ["* 8-18 * * mon-fri"]\n'
            "    [[runners.autoscaler.policy]]\n      idle_count = 1\n"
        )
    )
    [found] = [each for each in warnings(load_text(text)) if "never" in each]
    assert found.startswith("F:12: warning: runners[0].autoscaler.policy[0]: this policy can never hold: ")
    assert "in line 15 always matches" in found


def test_missing_key_file_stops_the_entry_and_the_others_run(load_text):
    text = RUNNER + POOL + '    [runners.autoscaler.connector_config]\n      key_path = "/no/such/key"\n'
    text += RUNNER.replace("id = 1", "id = 2") + POOL
    loaded = load_text(text)
    [found] = stops(loaded)
    assert found.startswith(
        "F:13: error (this runner is stopped): runners[0].autoscaler.connector_config.key_path: there is no file /no"
    )
    assert [each.id for each in loaded.settings.runners] == [2]
    assert loaded.settings.stopped[0].pool == "https://gitlab.example.com|1"
    assert loaded.settings.held_pools == {"https://gitlab.example.com|1", "https://gitlab.example.com|2"}


def test_missing_secret_key_file_is_an_error_that_says_how_to_make_one(load_text):
    [found] = errors(load_text('[fleet]\nsecret_key_file = "/no/such/key"\n'))
    assert found.startswith("F:2: error: fleet.secret_key_file: there is no file /no/such/key: make it with")


def test_secret_key_file_that_others_can_read_is_an_error(load_text, tmp_path: pathlib.Path):
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)
    [found] = errors(load_text('[fleet]\nsecret_key_file = "key"\n'))
    assert "chmod 600" in found
    key.chmod(0o600)
    assert errors(load_text('[fleet]\nsecret_key_file = "key"\n')) == []


def test_unreadable_ca_stops_the_entry(load_text, tmp_path: pathlib.Path):
    (tmp_path / "ca.pem").write_text("not a certificate")
    loaded = load_text(RUNNER + '  tls-ca-file = "ca.pem"\n' + POOL)
    [found] = stops(loaded)
    assert found.startswith("F:8: error (this runner is stopped): runners[0].tls-ca-file: ")
    assert found.endswith("holds no CA certificate in PEM form")
    [found] = stops(load_text(RUNNER + '  tls-ca-file = "gone.pem"\n' + POOL))
    assert "there is no file" in found


def test_half_a_client_certificate_stops_the_entry(load_text, tmp_path: pathlib.Path):
    (tmp_path / "c.pem").write_text("x")
    [found] = stops(load_text(RUNNER + '  tls-cert-file = "c.pem"\n' + POOL))
    assert "set both" in found


def test_a_certificate_and_a_key_that_do_not_fit_stop_the_entry(load_text, tmp_path: pathlib.Path):
    (tmp_path / "c.pem").write_text("x")
    (tmp_path / "dir").mkdir()
    text = RUNNER + '  tls-cert-file = "c.pem"\n  tls-key-file = "c.pem"\n' + POOL
    assert "are not a certificate and its key" in stops(load_text(text))[0]
    assert "cannot be read: Is a directory" in stops(load_text(text.replace('"c.pem"', '"dir"')))[0]


def test_a_url_that_is_no_address_stops_the_entry(load_text):
    assert "write it as https://" in stops(load_text(RUNNER.replace("https://", "") + POOL))[0]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[[runners.autoscaler]]\nplugin = 'local'", "runners[0].autoscaler: must be a table, not a list"),
        ("[runners.autoscaler.policy]\nidle_count = 1", "runners[0].autoscaler.policy: must be a list, not a table"),
        ("[[runners.autoscaler.policy]]\nidle_time = '-5m'", "idle_time: must not be below 0"),
        ("[[runners.autoscaler.policy]]\nidle_count = -1", "idle_count: must be 0 or more"),
        ("[[runners.autoscaler.placements]]\nweight = 1", "placements[0].name: is missing: it must be set"),
        ("[runners.autoscaler.fleet]\nmax_age = '0'", "max_age: must be longer than 0"),
        ("[runners.ssh]\nport = 'ssh'", "ssh.port: is not a port"),
        ("[runners.ssh]\nport = 70000", "ssh.port: must be 65535 or less"),
        ("[runners.feature_flags]\nFF_X = 'yes'", "feature_flags.FF_X: must be true or false, not a text"),
    ],
)
def test_wrong_shapes_of_tables_are_said(load_text, table: str, says: str):
    [found] = [each for each in errors(load_text(RUNNER + table + "\n")) if "plugin: is missing" not in each]
    assert says in found


def test_two_different_pools_with_one_name_are_an_error_that_names_both_lines(load_text):
    named = POOL + '    [runners.autoscaler.fleet]\n      pool = "p"\n'
    other = named.replace("max_instances = 1", "max_instances = 2")
    [found] = errors(load_text(RUNNER + named + RUNNER.replace("id = 1", "id = 2") + other))
    assert found.startswith("F:26: error: runners[1].autoscaler.fleet.pool: two different pools have the name 'p'")
    assert "in lines 9 and 22" in found


def test_a_pool_that_nobody_defines_is_an_error(load_text):
    named = POOL + '    [runners.autoscaler.fleet]\n      pool = "linux"\n'
    text = RUNNER + named + RUNNER.replace("id = 1", "id = 2") + '  [runners.autoscaler.fleet]\n    pool = "linus"\n'
    [found] = errors(load_text(text))
    assert found.endswith("there is no pool 'linus': did you mean 'linux'?")


@pytest.mark.parametrize(
    ("executor", "why"),
    [
        ("kubernetes", "is not supported: use one of docker, docker-autoscaler, docker-ssh, instance, shell, ssh"),
        ("docker+machine", "is not supported"),
        ("docker-windows", "is not supported"),
        ("foo", "is not supported"),
    ],
)
def test_unsupported_executor_stops_that_entry_while_the_others_run(load_text, executor: str, why: str):
    text = RUNNER.replace("instance", executor) + RUNNER.replace("id = 1", "id = 2") + POOL
    loaded = load_text(text)
    [found] = stops(loaded)
    assert found.startswith(f"F:7: error (this runner is stopped): runners[0].executor: {executor!r} {why}")
    assert [each.id for each in loaded.settings.runners] == [2]
    assert loaded.settings.held_runners == {"https://gitlab.example.com|1", "https://gitlab.example.com|2"}


@pytest.mark.parametrize("protocol", ["winrm", "winrm+https"])
def test_unsupported_protocol_stops_every_runner_of_the_pool(load_text, protocol: str):
    named = POOL + '    [runners.autoscaler.fleet]\n      pool = "p"\n'
    named += f'    [runners.autoscaler.connector_config]\n      protocol = "{protocol}"\n'
    sharing = RUNNER.replace("id = 1", "id = 2") + '  [runners.autoscaler.fleet]\n    pool = "p"\n'
    loaded = load_text(RUNNER + named + sharing + RUNNER.replace("id = 1", "id = 3") + POOL)
    assert [each.id for each in loaded.settings.runners] == [3]
    assert [each.pool for each in loaded.settings.stopped] == ["p", "p"]
    first, second = stops(loaded)
    assert "connector_config.protocol: 'winrm" in first
    assert "its pool 'p' is stopped" in second


def test_unsupported_shell_and_system_stop_the_entry(load_text):
    assert "use bash, sh, pwsh or powershell" in stops(load_text(RUNNER + '  shell = "cmd"\n' + POOL))[0]
    text = RUNNER + POOL + '    [runners.autoscaler.connector_config]\n      os = "windows"\n'
    assert "'windows' is not supported: the agent runs on linux and darwin" in stops(load_text(text))[0]
    assert stops(load_text(text.replace("windows", "darwin"))) == []


def test_undefined_variable_and_missing_token_stop_the_entry(load_text):
    text = RUNNER.replace("secret-token", "$RUNNER_TOKEN") + POOL
    assert "names the variable $RUNNER_TOKEN" in stops(load_text(text))[0]
    assert load_text(text, {"RUNNER_TOKEN": "t"}).settings.runners[0].token.get_secret_value() == "t"
    assert "has no token" in stops(load_text(RUNNER.replace("secret-token", "") + POOL))[0]


def test_the_same_runner_twice_stops_the_second_and_keeps_the_first(load_text):
    loaded = load_text(RUNNER + POOL + RUNNER + POOL)
    assert "is the same runner (url and id) as the entry in line 2" in stops(loaded)[0]
    assert [each.index for each in loaded.settings.runners] == [0]


def test_placements_with_one_name_are_an_error(load_text):
    placement = '    [[runners.autoscaler.placements]]\n      name = "a"\n'
    [found] = errors(load_text(RUNNER + POOL + placement * 2))
    assert found == (
        "F:15: error: runners[0].autoscaler.placements[1].name: 'a' is also the name of the placement in line 12"
    )


@pytest.mark.parametrize(
    ("hosts", "says"),
    [("", "must be a list of hosts"), ("hosts = []", "must be a list"), ("hosts = [{ port = 22 }]", "with address")],
)
def test_static_pool_without_hosts_is_an_error(load_text, hosts: str, says: str):
    text = RUNNER + POOL.replace("local", "static") + f"    [runners.autoscaler.plugin_config]\n{hosts}\n"
    [found] = errors(load_text(text))
    assert says in found


def test_toml_error_gives_line_and_column(load_text):
    loaded = load_text("concurrent = 1\nname = = 2\n")
    [line] = loaded.lines()
    assert line.startswith(f"{loaded.path}:2:8: error: is not TOML: ")
    assert loaded.settings is None
    assert load_text('a = "').lines()[0].split(": ")[1] == "error"
    assert "declared twice" in load_text("[a]\n[a]\n").lines()[0] or "is not TOML" in load_text("[a]\n[a]\n").lines()[0]


def test_bytes_that_are_no_text_give_the_line(tmp_path: pathlib.Path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    assert load(path, {}).lines() == [f"{path}:2: error: is not UTF-8 text from here on"]


def test_missing_and_unreadable_files_are_said(tmp_path: pathlib.Path):
    assert "there is no such file" in load(tmp_path / "none.toml", {}).lines()[0]
    assert "cannot be read: Is a directory" in load(tmp_path, {}).lines()[0]


def test_one_run_names_all_that_is_wrong(load_text):
    loaded = load_text(
        "concurent = 1\ncheck_interval = 'x'\n[fleet]\nfoo = 1\n" + RUNNER + "  limit = 'x'\n  bar = 1\n"
    )
    assert {each.line for each in loaded.errors} == {1, 2, 4, 12, 13}


def test_no_message_holds_a_secret(load_text):
    texts = (
        RUNNER.replace('"secret-token"', '["secret-token"]') + POOL,
        RUNNER.replace("secret-token", "secret-token\\u0000") + '  environment = ["secret-token"]\n' + POOL,
        '[fleet]\napi_token = { a = "secret-token" }\n',
        RUNNER + POOL + '    [runners.autoscaler.connector_config]\n      password = ["secret-token"]\n',
        RUNNER + POOL + '    [runners.autoscaler.connector_config]\n      password = "secret-token"\n',
    )
    for text in texts:
        loaded = load_text(text)
        assert "secret-token" not in "\n".join(loaded.lines())
        assert "secret-token" not in repr(loaded)


def test_deeply_nested_or_huge_files_are_refused_not_crashed(tmp_path: pathlib.Path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"a = " + b"[" * 100_000)
    assert load(path, {}).settings is None
    path.write_bytes(b"#" * (16 * 1024 * 1024 + 1))
    assert "larger than 16 MiB" in load(path, {}).lines()[0]


def test_powershell_is_accepted_on_machines_and_refused_in_containers(load_text):
    assert stops(load_text(RUNNER + '  shell = "pwsh"\n' + POOL)) == []
    in_containers = RUNNER.replace('executor = "instance"', 'executor = "docker-autoscaler"') + '  shell = "pwsh"\n'
    assert "'pwsh' is not supported in containers" in stops(load_text(in_containers + POOL))[0]
