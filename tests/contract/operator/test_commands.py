"""The commands that look and order: of a running manager over its API, and of the store when there is none."""

from __future__ import annotations

import pytest

from fleet.model.lifecycle import InstanceState as S
from fleet.store import instances
from tests.contract.operator.fleet_world import POOL, running, write_config

LOOKS = ["status", "pools", "instances", "jobs", "runners", "managers", "placements", "plan"]


@pytest.fixture
def stopped(config, tmp_path):
    """A store that a manager has left behind: a leased machine, a job that waits, one that is gone."""
    write_config(config, tmp_path / "state")
    with running(config) as world:
        machine = world.instance("i-busy")
        world.lease(machine, world.job("j-starting"))
        world.instance("i-free")
        for name in ("i-busy", "i-free"):
            world.write(lambda tx, name=name: instances.update(tx, name, unhealthy="bad"))
        world.job("j-waiting")
        gone = world.instance("i-gone", state=S.REQUESTED)
        world.goes_through(gone, S.DELETING, S.GONE)
    return config


@pytest.mark.parametrize("name", LOOKS)
def test_each_look_has_a_table_and_json_from_the_manager(name, world, config, fleetctl) -> None:
    world.lease(world.instance("i-busy"), world.job())
    world.manager.planner.activate()
    said = fleetctl(name, "-c", config)
    assert said.code == 0, said.err
    assert said.err == ""
    assert said.out.strip()
    assert fleetctl(name, "-c", config, "--output", "json").json
    assert "word-that-is-secret" not in said.out


@pytest.mark.parametrize("name", LOOKS)
def test_each_look_reads_the_store_when_no_manager_runs_and_says_so(name, stopped, fleetctl) -> None:
    said = fleetctl(name, "-c", stopped, "--output", "json")
    assert said.code == (1 if name == "status" else 0)
    assert "no manager" in said.err
    assert said.json


def test_status_ends_with_1_when_no_jobs_are_taken(world, config, fleetctl) -> None:
    assert fleetctl("status", "-c", config).code == 0
    world.manager.state = "draining"
    said = fleetctl("status", "-c", config)
    assert said.code == 1
    assert "takes no more jobs" in said.out


def test_instances_are_shown_with_their_jobs_and_remarks(stopped, fleetctl) -> None:
    said = fleetctl("instances", "-c", stopped)
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert "bad" in lines["i-free"]
    assert "i-gone" not in lines
    said = fleetctl("instances", "-c", stopped, "--state", "all", "--output", "json")
    assert [each["instance_id"] for each in said.json] == ["i-busy", "i-free", "i-gone"]
    assert fleetctl("instances", "-c", stopped, "--state", "odd").code == 1


def test_a_list_is_read_page_by_page(world, config, fleetctl, monkeypatch) -> None:
    for _ in range(5):
        world.instance()
    monkeypatch.setattr("fleet.cli.asking.MOST", 2)
    assert len(fleetctl("instances", "-c", config, "--output", "json").json) == 5
    assert len(fleetctl("instances", "-c", config, "--limit", "3", "--output", "json").json) == 3


def test_a_plan_without_a_manager_is_made_and_not_applied(stopped, fleetctl) -> None:
    said = fleetctl("plan", POOL, "-c", stopped, "--output", "json").json
    assert said["applied"] is False
    assert [wait["job"] for wait in said["items"][0]["waits"]] == ["j-waiting"]
    assert said["items"][0]["creates"]
    assert len(fleetctl("instances", "-c", stopped, "--output", "json").json) == 2
    assert "j-waiting" in fleetctl("plan", "-c", stopped).out
    assert fleetctl("plan", "another", "-c", stopped).code == 1


def test_explain_says_why_a_job_waits_and_why_a_machine_went(stopped, fleetctl) -> None:
    said = fleetctl("explain", "j-waiting", "-c", stopped)
    assert said.code == 0
    assert "waits for a slot of pool linux" in said.out
    assert "Why: " in said.out
    assert "received" in said.out
    said = fleetctl("explain", "i-gone", "-c", stopped)
    assert "was removed at" in said.out
    assert "a test wants it" in said.out
    assert fleetctl("explain", "nobody", "-c", stopped).code == 1


def test_orders_go_to_the_manager(world, config, fleetctl) -> None:
    machine = world.instance("i-1")
    assert fleetctl("drain", machine, "-c", config).code == 0
    assert world.get("/api/v1/instances").json()["items"][0]["state"] == "draining"
    assert fleetctl("undrain", machine, "-c", config).code == 0
    world.lease(machine, world.job())
    said = fleetctl("remove", machine, "-c", config)
    assert said.code == 1
    assert "drain it" in said.err
    assert fleetctl("remove", machine, "--force", "-c", config).code == 0
    assert fleetctl("store", "sweep", "off", "-c", config).code == 0
    assert "sweeping    off" in fleetctl("status", "-c", config).out
    assert fleetctl("reload", "-c", config).code == 0
    assert world.reloader.loaded == 1


def test_orders_change_the_rows_when_no_manager_runs(stopped, fleetctl) -> None:
    said = fleetctl("drain", "i-busy", "-c", stopped)
    assert said.code == 0
    assert "next manager" in said.err
    rows = {e["instance_id"]: e["state"] for e in fleetctl("instances", "-c", stopped, "--output", "json").json}
    assert rows["i-busy"] == "draining"
    assert fleetctl("reload", "-c", stopped).code == 4
    assert fleetctl("drain", "i-none", "-c", stopped).code == 1


def test_a_manager_of_another_configuration_is_not_asked(world, config, fleetctl, tmp_path) -> None:
    other = tmp_path / "etc" / "other.toml"
    other.write_text(config.read_text().replace(f'"{tmp_path}/state"', f'"{tmp_path}/other"'))
    said = fleetctl("instances", "-c", other)
    assert said.code == 4
    assert f"the manager of {config}" in said.err


def test_the_api_token_is_taken_from_the_configuration(config, tmp_path, fleetctl) -> None:
    write_config(config, tmp_path / "state", fleet='api_token = "let-me-in"')
    with running(config) as world:
        world.instance()
        assert len(fleetctl("instances", "-c", config, "--output", "json").json) == 1


def test_the_manager_is_found_where_it_listens_and_not_where_the_file_says_by_now(world, config, fleetctl) -> None:
    world.instance()
    port = world.web.api_url.rpartition(":")[2]
    config.write_text(config.read_text().replace(port, "1"))
    assert len(fleetctl("instances", "-c", config, "--output", "json").json) == 1


def test_a_key_that_is_missing_is_told_and_not_made_anew(stopped, fleetctl, tmp_path) -> None:
    (tmp_path / "state" / "secret.key").unlink()
    said = fleetctl("plan", "-c", stopped)
    assert said.code == 3
    assert "secret key" in said.err
    assert not (tmp_path / "state" / "secret.key").exists()
