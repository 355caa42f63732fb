"""`fleetctl check` against a real GitLab stand-in, a real SSH server, and things that are missing."""

from __future__ import annotations

import pathlib
import socket

import pytest

from tests.contract.machine.openssh import OpenSsh
from tests.contract.operator.fleet_world import free_port, running, write_config


def verdicts(said) -> dict[str, str]:
    """About -> the worst verdict on it."""
    order = ["ok", "warn", "fail"]
    found: dict[str, str] = {}
    for each in said.json:
        found[each["about"]] = max(found.get(each["about"], "ok"), each["verdict"], key=order.index)
    return found


def one_runner(
    config: pathlib.Path, state: pathlib.Path, gitlab, token: str, *, more: str = "", fleet: str = ""
) -> None:
    config.write_text(
        f"""
concurrent = 4
[fleet]
state_dir = "{state}"
api_listen = "127.0.0.1:{free_port()}"
reserve_free_bytes = 0
{fleet}
[[runners]]
name = "one"
url = "{gitlab.url}"
id = 1
token = "{token}"
executor = "instance"
  [runners.autoscaler]
  plugin = "local"
  max_instances = 2
  [runners.autoscaler.fleet]
  pool = "mine"
{more}
"""
    )


def test_all_is_well_on_a_fresh_host(fleetctl, config, gitlab, tmp_path) -> None:
    one_runner(config, tmp_path / "state", gitlab, gitlab.create_runner()["token"])
    said = fleetctl("check", "-c", config, "--output", "json")
    assert said.code == 0, said.out
    found = verdicts(said)
    assert {"secret key", "database", "state_dir", "spool_dir", "runner one", "pool mine"} <= set(found)
    assert "fail" not in found.values()
    assert not (tmp_path / "state" / "secret.key").exists()
    assert not (tmp_path / "state" / "fleet.sqlite").exists()
    assert fleetctl("check", "-c", config).out.startswith(("ok", "warn"))


def test_a_token_that_gitlab_refuses_fails(fleetctl, config, gitlab, tmp_path) -> None:
    one_runner(config, tmp_path / "state", gitlab, "glrt-" + "unknown")
    said = fleetctl("check", "-c", config, "--output", "json")
    assert said.code == 1
    assert verdicts(said)["runner one"] == "fail"
    assert verdicts(fleetctl("check", "-c", config, "--offline", "--output", "json")).get("runner one") is None


def test_what_is_wrong_with_plugin_disk_and_address_is_found_in_one_go(fleetctl, config, gitlab, tmp_path) -> None:
    one_runner(config, tmp_path / "state", gitlab, gitlab.create_runner()["token"], fleet="")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = config.read_text().replace('plugin = "local"', 'plugin = "nobodys"')
        text = text.replace("reserve_free_bytes = 0", "reserve_free_bytes = 1152921504606846976")
        port = text.partition("127.0.0.1:")[2].partition('"')[0]
        config.write_text(text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{taken.getsockname()[1]}", 1))
        said = fleetctl("check", "-c", config, "--output", "json")
    found = verdicts(said)
    assert said.code == 1
    assert found["pool mine"] == found["state_dir"] == found["spool_dir"] == found["[fleet] api_listen"] == "fail"
    assert found["runner one"] == "ok"


def test_a_key_that_does_not_open_the_database_fails(fleetctl, config, tmp_path) -> None:
    write_config(config, tmp_path / "state")
    with running(config):
        said = fleetctl("check", "-c", config, "--offline", "--output", "json")
        assert said.code == 0
        assert any("a manager of this configuration runs" in each["message"] for each in said.json)
    other = fleetctl("db", "new-key").out.strip()
    said = fleetctl("check", "-c", config, "--offline", "--output", "json", FLEET_SECRET_KEY=other)
    assert said.code == 1
    assert verdicts(said)["database"] == "fail"


def test_a_broken_file_is_all_that_is_said(fleetctl, config) -> None:
    config.write_text("concurrent = 'x'\n")
    said = fleetctl("check", "-c", config, "--output", "json")
    assert said.code == 1
    assert [each["about"] for each in said.json] == ["configuration line 1"]


@pytest.mark.parametrize("right_key", [True, False])
def test_a_given_host_is_logged_in_to(right_key, fleetctl, config, gitlab, tmp_path) -> None:
    with OpenSsh(tmp_path / "sshd") as sshd:
        key = tmp_path / "client"
        key.write_text(sshd.client.private)
        key.chmod(0o600)
        target = sshd.target
        host_key = target.host_keys[0] if right_key else sshd.client.public
        one_runner(config, tmp_path / "state", gitlab, gitlab.create_runner()["token"])
        text = config.read_text().replace('plugin = "local"\n  max_instances = 2', 'plugin = "static"')
        config.write_text(
            text
            + f"""
  [runners.autoscaler.plugin_config]
  user = "{target.user}"
  key_path = "{key}"
  hosts = [{{ name = "box", address = "127.0.0.1", port = {sshd.port}, host_key = "{host_key}" }}]
"""
        )
        said = fleetctl("check", "-c", config, "--output", "json")
    box = [each for each in said.json if each["about"] == "host box"]
    assert box, said.out
    if right_key:
        assert any(each["verdict"] == "ok" and "python3 3." in str(each["message"]) for each in box), box
    else:
        assert [each["verdict"] for each in box] == ["fail"]
