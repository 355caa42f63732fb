"""Metrics and health as monitoring sees them."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from fleet.model.lifecycle import InstanceState as S
from fleet.runtime.families import FAMILIES
from fleet.runtime.web import AddressInUse, Web
from tests.contract.operator.fleet_world import POOL, RUNNER, World


def series(world: World, name: str, **labels: str) -> float:
    """The value of the one series with these labels."""
    found = [
        value
        for key, value in world.metrics().items()
        if key.partition("{")[0] == name and all(f'{label}="{text}"' in key for label, text in labels.items())
    ]
    assert len(found) == 1, f"{name} {labels}: {len(found)} series"
    return found[0]


def test_series_are_there_with_0_before_anything_has_happened(world) -> None:
    text = world.client.get(f"{world.web.metrics_url}/metrics").text
    for name in (
        "gitlab_runner_jobs_total",
        "gitlab_runner_job_duration_seconds_count",
        "gitlab_runner_job_queue_duration_seconds_count",
        "fleeting_provisioner_instance_creation_time_seconds_count",
        "fleeting_provisioner_instance_operations_total",
        "fleeting_taskscaler_task_operations_total",
        "fleeting_taskscaler_scale_operations_total",
    ):
        assert re.search(rf"^{name}{{[^}}]*}} 0\.0$", text, re.MULTILINE), name
    for state in ("idle", "pending", "acquired", "reserved", "unavailable", "unhealthy"):
        assert series(world, "fleeting_taskscaler_tasks", state=state) == 0
    for state in ("requested", "creating", "pending", "running", "deleting"):
        assert series(world, "fleeting_provisioner_instances", state=state) == 0


def test_every_family_has_a_type_and_a_help_line(world) -> None:
    text = world.client.get(f"{world.web.metrics_url}/metrics").text
    for name, family in FAMILIES.items():
        assert f"# TYPE {name} {family.kind}\n" in text
        assert f"# HELP {name} " in text


def test_gauges_say_what_stands_in_the_rows(world) -> None:
    ready, sick = world.instance(), world.instance(unhealthy="its disk is full")
    world.instance(state=S.CREATING)
    world.lease(ready, world.job())
    world.job()
    who = {"runner": "word-that", "runner_name": "one", "system_id": world.manager.me, "pool": POOL}
    assert series(world, "fleeting_provisioner_instances", state="running", **who) == 2
    assert series(world, "fleeting_provisioner_instances", state="creating", **who) == 1
    assert series(world, "fleeting_provisioner_max_instances", **who) == 5
    tasks = {state: series(world, "fleeting_taskscaler_tasks", state=state, **who) for state in ("idle", "acquired")}
    assert tasks == {"idle": 1, "acquired": 1}
    assert series(world, "fleeting_taskscaler_tasks", state="unhealthy", **who) == 2
    assert series(world, "fleeting_taskscaler_tasks", state="pending", **who) == 2
    assert series(world, "gitlab_runner_jobs", runner_name="one", stage="prepare_executor") == 2
    assert series(world, "fleet_instances", pool=POOL, state="ready") == 2
    assert series(world, "gitlab_runner_limit", runner_name="one") == 9
    assert series(world, "gitlab_runner_request_concurrency_hard_limit", runner_name="one") == 4
    assert series(world, "gitlab_runner_concurrent") == 20
    assert sick in [each["instance_id"] for each in world.get("/api/v1/instances").json()["items"]]


def test_a_job_is_counted_once_however_often_the_page_is_read(world) -> None:
    world.instance()
    good, bad = world.job(), world.job()
    world.manager.planner.activate()  # which leases both slots
    for job, reason in ((good, None), (bad, "script_failure")):
        world.run(job)
        world.metrics()
        world.finish(job, reason)
    for _ in range(3):
        found = world.metrics()
    who = f'runner="word-that",runner_name="one",system_id="{world.manager.me}"'
    assert found[f"gitlab_runner_jobs_total{{{who}}}"] == 2
    assert found[f'gitlab_runner_failed_jobs_total{{failure_reason="script_failure",mode="traditional",{who}}}'] == 1
    assert found[f'gitlab_runner_job_duration_seconds_count{{mode="traditional",{who}}}'] == 2
    assert found[f'fleet_job_start_seconds_count{{pool="{POOL}"}}'] == 2
    assert found[f'fleeting_taskscaler_task_operations_total{{operation="acquire",pool="{POOL}",{who}}}'] == 2
    assert found[f'fleeting_taskscaler_task_operations_total{{operation="release",pool="{POOL}",{who}}}'] == 2


def test_a_machines_life_fills_the_histograms(world) -> None:
    machine = world.instance(state=S.REQUESTED)
    world.goes_through(machine, S.CREATING, S.BOOTING, S.PREPARING, S.READY, S.DRAINING, S.DELETING, S.GONE)
    failed = world.instance(state=S.REQUESTED)
    world.goes_through(failed, S.CREATING, S.DELETING, S.GONE)
    for name, count in (
        ("fleeting_provisioner_instance_creation_time_seconds_count", 2),
        ("fleeting_provisioner_instance_is_running_time_seconds_count", 1),
        ("fleeting_taskscaler_task_instance_readiness_time_seconds_count", 1),
        ("fleeting_provisioner_instance_deletion_time_seconds_count", 2),
        ("fleeting_provisioner_instance_life_duration_seconds_count", 2),
    ):
        assert series(world, name, pool=POOL) == count, name
    operations = {
        operation: series(world, "fleeting_provisioner_instance_operations_total", operation=operation)
        for operation in ("create", "delete", "fail")
    }
    assert operations == {"create": 2, "delete": 1, "fail": 1}
    assert series(world, "fleeting_taskscaler_scale_operations_total", operation="down") == 2


def test_calls_to_gitlab_are_counted_and_an_outage_is_measured(world) -> None:
    def seen(status: int) -> None:
        world.meters.request_seen(endpoint="request_job", method="POST", status=status, seconds=0.2, runner="word-that")

    seen(201)
    assert series(world, "gitlab_runner_api_request_statuses_total", status="201", endpoint="request_job") == 1
    seen(-1)
    began = time.monotonic()
    while series(world, "fleet_gitlab_unreachable_seconds", runner="word-that") == 0:
        assert time.monotonic() < began + 5
    seen(204)
    assert series(world, "fleet_gitlab_unreachable_seconds", runner="word-that") == 0
    assert series(world, "fleet_gitlab_outage_seconds_total", runner="word-that") > 0


def test_waiting_is_counted_by_its_cause(world) -> None:
    world.job()
    world.manager.planner.activate()
    world.web.metrics.measure()
    plan = world.manager.planner.plans[POOL]
    assert plan.waits
    cause = plan.waits[0].slug.value
    world.metrics()
    assert series(world, "fleet_job_wait_seconds_total", pool=POOL, cause=cause) > 0
    assert series(world, "fleet_jobs_waiting", pool=POOL, cause=cause) == 1


def test_no_token_is_a_label(world) -> None:
    world.job()
    assert "word-that-is-secret" not in world.client.get(f"{world.web.metrics_url}/metrics").text


def test_a_manager_that_takes_jobs_is_ready_and_alive(world) -> None:
    for url in (world.web.metrics_url, world.web.api_url):
        assert world.client.get(f"{url}/health/live").status_code == 200
        assert world.client.get(f"{url}/health/ready").status_code == 200
    assert series(world, "fleet_ready") == 1


@pytest.mark.parametrize("state", ["starting", "draining", "aborting"])
def test_a_manager_that_takes_no_jobs_is_alive_and_not_ready(world, state) -> None:
    world.manager.state = state
    said = world.client.get(f"{world.web.metrics_url}/health/ready")
    assert said.status_code == 503
    assert said.text.strip()
    assert world.client.get(f"{world.web.metrics_url}/health/live").status_code == 200
    assert series(world, "fleet_not_ready", reason=state) == 1


def test_a_full_disk_and_a_store_that_takes_no_write_are_told(world) -> None:
    world.manager.disks.reserve_bytes = 1 << 60
    world.manager.disks._looked_at = -1e9
    world.manager.heart.failing_since = time.monotonic() - 7
    said = world.client.get(f"{world.web.metrics_url}/health/ready")
    assert said.status_code == 503
    assert "reserve_free_bytes" in said.text
    assert "no write for 7 s" in said.text
    world.manager.heart.failing_since = None


def test_metrics_answer_when_the_store_does_not(world) -> None:
    world.manager.store.close()
    found = world.metrics()
    assert "fleet_lane_threads" in found
    assert not any(key.startswith("fleet_journal_lines_total") for key in found)


def test_a_head_request_is_answered_without_a_body(world) -> None:
    said = world.client.head(f"{world.web.metrics_url}/metrics")
    assert said.status_code == 200
    assert said.content == b""
    assert said.headers["content-type"].startswith("text/plain")


def test_the_pages_of_gitlab_runner_are_there(world) -> None:
    world.lease(world.instance(), world.job())
    said = world.client.get(f"{world.web.metrics_url}/debug/jobs/list")
    assert said.headers["X-List-Version"] == "2"
    [line] = said.text.splitlines()
    assert "state=running stage=prepare_executor" in line
    assert world.client.get(f"{world.web.metrics_url}/debug/process/state").text == "running\n"


def test_the_open_listener_has_no_api(world) -> None:
    assert world.client.get(f"{world.web.metrics_url}/api/v1/status").status_code == 404
    assert world.client.post(f"{world.web.metrics_url}/metrics").status_code == 405


def test_an_address_that_is_taken_is_told_with_its_key(world) -> None:
    second = Web(world.manager)
    with pytest.raises(AddressInUse, match="listen_address"):
        second.start()
    settings = world.manager.settings
    alone = dataclasses.replace(settings, global_=settings.global_.model_copy(update={"listen_address": None}))
    world.manager.settings = alone
    with pytest.raises(AddressInUse, match=r"\[fleet\] api_listen"):
        Web(world.manager).start()
    world.manager.settings = settings


def test_a_runner_of_the_store_is_shown_under_its_short_token(world) -> None:
    assert RUNNER in world.manager.book.runners
    assert series(world, "gitlab_runner_request_concurrency", runner="word-that") == 0


def test_pools_of_another_manager_are_shown_there(world) -> None:
    world.instance()
    world.manager.book.set_owned({})
    found = world.metrics()
    assert found[f'fleet_pool_owned{{pool="{POOL}"}}'] == 0
    assert not any(key.startswith("fleeting_provisioner_instances{") for key in found)
