"""Real machines behind a cloud that is ill, by an outside plugin: jobs run, nothing is made twice, nothing is left."""

from __future__ import annotations

import time

import pytest

from fleet.demo.payload import make_job
from fleet.machine.keys import fingerprint
from tests.acceptance.manager import POOL as LOCAL_POOL
from tests.acceptance.manager import wait_until
from tests.acceptance.reasons import in_state, journal
from tests.acceptance.sick_pool import SickPool
from tests.acceptance.standing import settled

PLACEMENTS = '[[runners.autoscaler.placements]]\nname = "near"\n[[runners.autoscaler.placements]]\nname = "far"'


@pytest.fixture
def cloud(tmp_path):
    return SickPool(tmp_path)


def run(gitlab, *script: str, timeout: float = 60.0):
    (view,) = gitlab.wait_for(gitlab.enqueue(make_job(script=script or ("true",))), timeout=timeout)
    return view


def emptied(gitlab, manager) -> None:
    """Every machine goes after its job."""
    wait_until(lambda: in_state(manager) == [] and manager.machines() == [], 60, "the end of the machines")
    settled(gitlab, manager)


def test_an_outside_plugin_is_found_by_its_entry_point_and_runs_jobs(gitlab, make_manager, cloud):
    manager = cloud.started(make_manager(pool=cloud.pool(idle_time="1s")))
    assert run(gitlab).state == "success"
    assert len(cloud.calls("create", "done")) == 1
    emptied(gitlab, manager)
    assert cloud.calls("delete", "done")


def test_law_2_a_lost_answer_makes_one_machine(gitlab, make_manager, cloud):
    cloud.order(("ForgetfulCloud", {"times": 1}))
    manager = cloud.started(make_manager(pool=cloud.pool(idle_time="1s")))
    assert run(gitlab).state == "success"
    assert len({each["token"] for each in cloud.calls("create")}) == 1
    assert len(manager.rows("SELECT instance_id FROM instances")) == 1
    emptied(gitlab, manager)


def test_law_2_a_manager_killed_during_a_create_makes_one_machine(gitlab, make_manager, cloud):
    cloud.order(("HangingCloud", {"calls": ["create"], "first_works": True}))
    manager = cloud.started(make_manager(pool=cloud.pool(idle_time="1s")))
    job = gitlab.enqueue(make_job(script=["true"]))
    wait_until(manager.machines, 40, "the machine of a call that does not come back")
    manager.kill()
    cloud.order()
    cloud.started(manager)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    assert len(manager.rows("SELECT instance_id FROM instances")) == 1
    assert len({each["token"] for each in cloud.calls("create")}) == 1
    emptied(gitlab, manager)


def test_a_machine_made_in_spite_of_an_error_is_deleted_and_the_job_runs_elsewhere(gitlab, make_manager, cloud):
    cloud.order(("LyingCloud", {"times": 1}))
    manager = cloud.started(make_manager(pool=cloud.pool(idle_time="1s", tables=PLACEMENTS)))
    assert run(gitlab).state == "success"
    assert [each["placement"] for each in cloud.calls("create", "done")] == ["far"]
    emptied(gitlab, manager)
    ends = manager.rows("SELECT placement, end_reason FROM instances ORDER BY created_at")
    assert ends[0]["placement"] == "near"
    assert "there is no such machine" in ends[0]["end_reason"]


def test_a_full_placement_is_remembered_across_kill_9(gitlab, make_manager, cloud):
    cloud.order(("FullCloud", {"placements": ["near"]}))
    manager = cloud.started(make_manager(pool=cloud.pool(tables=PLACEMENTS, pool_keys="max_use_count = 1")))
    assert run(gitlab).state == "success"
    assert [each["placement"] for each in cloud.calls("create", "OutOfCapacity")] == ["near"]
    [cold] = manager.rows("SELECT scope, reason FROM cool_downs")
    assert cold["scope"].endswith("/near")
    manager.kill()
    cloud.started(manager)
    assert run(gitlab).state == "success"
    assert [each["placement"] for each in cloud.calls("create", "OutOfCapacity")] == ["near"], "it was left alone"
    settled(gitlab, manager)


def test_a_batch_that_falls_short_runs_its_jobs_all_the_same(gitlab, make_manager, cloud):
    cloud.order(("ShortCloud", {"most": 1, "times": 1}))
    manager = cloud.started(make_manager(pool=cloud.pool(machines=3, idle=3, tables=PLACEMENTS)))
    jobs = [gitlab.enqueue(make_job(script=["true"])) for _ in range(3)]
    for view in gitlab.wait_for(*jobs, timeout=90):
        assert view.state == "success"
    assert journal(manager, "shortfall")
    settled(gitlab, manager)


def test_a_listing_that_lags_loses_nothing(gitlab, make_manager, cloud):
    cloud.order(("LaggingCloud", {"lag_s": 5}))
    manager = cloud.started(make_manager(pool=cloud.pool(plugin_keys="lag_s = 6", idle_time="1s")))
    assert run(gitlab).state == "success"
    assert len(cloud.calls("create", "done")) == 1
    assert len(manager.rows("SELECT instance_id FROM instances")) == 1
    emptied(gitlab, manager)


def test_a_delete_that_hangs_is_given_up_and_asked_again(gitlab, make_manager, cloud):
    keys = 'deletion_retry_interval = "1s"'
    manager = cloud.started(
        make_manager(pool=cloud.pool(idle_time="1s", pool_keys=keys, plugin_keys="call_timeout_s = 2"))
    )
    job = gitlab.enqueue(make_job(script=["sleep 1"]))
    gitlab.wait_for(job, states=["running"], timeout=60)
    cloud.order(("HangingCloud", {"calls": ["delete"]}))
    gitlab.wait_for(job, timeout=60)
    wait_until(lambda: len(cloud.calls("delete", "begun")) >= 2, 60, "a second try")
    assert len(in_state(manager, "deleting")) == 1, "it counts until it is gone"
    cloud.order()
    emptied(gitlab, manager)


def test_law_9_an_impostor_is_never_logged_in_to_and_goes(gitlab, make_manager, cloud):
    cloud.order(("ImpostorCloud", {"times": 1}))
    keys = 'instance_acquire_timeout = "6s"'
    manager = cloud.started(make_manager(pool=cloud.pool(pool_keys=keys)))
    view = run(gitlab)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    told = journal(manager, "host_key_mismatch")
    [keys] = manager.rows("SELECT host_keys FROM instances ORDER BY created_at LIMIT 1")
    assert "no login was tried" in told[0]
    assert fingerprint(keys["host_keys"].strip('[]"')) in told[0]
    wait_until(lambda: in_state(manager, "gone") and manager.machines() == [], 60, "the end of the impostor")
    settled(gitlab, manager)


def test_a_cloud_that_hangs_for_ever_leaves_other_pools_their_speed(gitlab, make_manager, cloud):
    """Two runners, two pools: while every call of one cloud hangs, a job on the other starts at once."""
    cloud.order(("HangingCloud", {}))
    other = gitlab.create_runner(description="healthy")
    healthy = f"""
[[runners]]
name = "healthy"
url = "{gitlab.url}"
id = {other["id"]}
token = "{other["token"]}"
executor = "instance"
request_concurrency = 4
{LOCAL_POOL.format(machines=2, capacity=1, idle=1, idle_time="10m", pool_keys="")}
"""
    manager = cloud.started(make_manager(pool=cloud.pool(plugin_keys="call_timeout_s = 1") + healthy))
    stuck = [gitlab.enqueue(make_job(script=["true"]), runner_id=manager.runner["id"]) for _ in range(3)]
    wait_until(lambda: cloud.calls("create", "begun"), 40, "a call that hangs")
    wait_until(lambda: manager.events("work_hung"), 40, "the manager's notice")
    wait_until(lambda: in_state(manager, "ready"), 60, "the healthy machine")
    waits = []
    for _ in range(3):
        job = gitlab.enqueue(make_job(script=["echo begun"]), runner_id=other["id"])
        (view,) = gitlab.wait_for(job, timeout=60)
        assert view.state == "success"
        waits.append(view.first_trace_at - view.queued_at)
        wait_until(lambda: in_state(manager, "ready"), 60, "the slot")
    assert min(waits) < 3.0
    assert sorted(waits)[1] < 6.0, "the median, with room for a busy host"
    cloud.order()
    for view in gitlab.wait_for(*stuck, timeout=120):
        assert view.state == "success"
    settled(gitlab, manager)


def test_law_10_a_burst_never_passes_max_instances(gitlab, make_manager, cloud):
    cloud.order(("StutteringCloud", {}))
    keys = "max_use_count = 1"
    manager = cloud.started(make_manager(pool=cloud.pool(machines=3, idle=1, idle_time="1s", pool_keys=keys)))
    jobs = [gitlab.enqueue(make_job(script=["true"])) for _ in range(10)]
    most, until = 0, time.monotonic() + 150
    while time.monotonic() < until and not all(gitlab.job(job).is_ended for job in jobs):
        most = max(most, len(manager.machines()))
        time.sleep(0.05)
    assert [gitlab.job(job).state for job in jobs] == ["success"] * 10
    assert 0 < most <= 3
    settled(gitlab, manager)


def test_a_plugin_that_breaks_is_told_with_its_name_and_asked_again(gitlab, make_manager, cloud):
    cloud.order(("BuggyCloud", {"times": 3}))
    manager = cloud.started(make_manager(pool=cloud.pool()))
    assert run(gitlab, timeout=90).state == "success"
    told = manager.events("provider_broke")
    assert told
    told += manager.events("create_failed") + manager.events("listing_failed")
    assert any("KeyError" in str(each) for each in told)
    settled(gitlab, manager)
