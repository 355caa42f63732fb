"""What people see is the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading

import pytest

from fleet.model.lifecycle import InstanceState as S
from fleet.runtime.lifetimes import Lifetimes
from fleet.runtime.meters import Meters
from fleet.store.database import Tx
from tests.contract.operator.fleet_world import POOL, World, running, write_config
from tests.contract.store import world as rows


@pytest.fixture
def both(store_url, config, tmp_path):
    write_config(config, tmp_path / "state", fleet=f'database = "{store_url}"')
    with running(config) as world:
        yield world


def test_every_question_every_series_and_every_command_has_an_answer(both, config, fleetctl) -> None:
    busy, job = both.instance(), both.job()
    both.lease(busy, job)
    both.run(job)
    both.finish(job, "script_failure")
    both.instance(unhealthy="bad")
    gone = both.instance(state=S.REQUESTED)
    both.goes_through(gone, S.CREATING, S.DELETING, S.GONE)
    waiting = both.job()
    both.manager.planner.activate()
    for question in ("status", "pools", "instances", "jobs?state=all", "runners", "managers", "placements", "plan"):
        assert both.get(f"/api/v1/{question}").status_code == 200, question
    assert both.get(f"/api/v1/journal?about={job}").json()["items"][0]["new"] == "finished"
    for name in (waiting, job, busy, gone, POOL):
        assert both.get(f"/api/v1/explain/{name}").json()["story"], name
    found = both.metrics()
    for name in ("gitlab_runner_failed_jobs_total", "fleeting_provisioner_instance_life_duration_seconds_count"):
        assert sum(value for key, value in found.items() if key.startswith(f"{name}{{")) == 1, name
    both.web.close()
    for command in ("status", "instances", "jobs", "plan"):
        assert fleetctl(command, "-c", config, "--output", "json").json, command


def counted(world: World) -> tuple[Lifetimes, Meters]:
    meters = Meters(world.manager.me)
    lifetimes = Lifetimes(meters, world.manager.book, world.manager.me)
    world.manager.store.read(lifetimes.catch_up)
    return lifetimes, meters


def made(meters: Meters) -> float:
    labels = {"pool": POOL, "operation": "create"}
    return meters.registry.get_sample_value(
        "fleeting_provisioner_instance_operations_total",
        {"runner": "word-that", "runner_name": "one", "system_id": meters.system_id, **labels},
    ) or 0.0  # fmt: skip


def test_a_line_that_appears_after_a_later_one_is_counted_once(both) -> None:
    """On PostgreSQL a number is taken before the commit, so a later number may be seen first."""
    lifetimes, meters = counted(both)
    if not both.manager.store.shared:
        both.instance()
        assert both.manager.store.read(lifetimes.catch_up) == 1
        assert both.manager.store.read(lifetimes.catch_up) == 0
        return
    taken, go_on = threading.Event(), threading.Event()

    def late(tx: Tx) -> None:
        rows.add_instance(tx, "i-late", pool=POOL)
        tx.finish()
        tx._lines.clear()
        taken.set()
        assert go_on.wait(20)

    thread = threading.Thread(target=lambda: both.manager.store.write(late))
    thread.start()
    try:
        assert taken.wait(20)
        both.instance("i-early")
        both.manager.store.read(lifetimes.catch_up)
        assert made(meters) == 1
    finally:
        go_on.set()
        thread.join(20)
    both.manager.store.read(lifetimes.catch_up)
    assert made(meters) == 2
    both.manager.store.read(lifetimes.catch_up)
    assert made(meters) == 2
