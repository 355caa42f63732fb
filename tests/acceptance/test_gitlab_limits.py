"""How many jobs and polls at once: limit, concurrent, request_concurrency, intervals; several runners and servers."""

from __future__ import annotations

import itertools

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from fleet.demo.state import Knobs
from tests.acceptance.manager import POOL, wait_until
from tests.acceptance.standing import settled

SHARED = '  [runners.autoscaler.fleet]\n  pool = "shared"\n'


def pool(**keywords):
    values = {"machines": 4, "capacity": 1, "idle": 0, "idle_time": "30s", "pool_keys": ""} | keywords
    return POOL.format(**values)


def entry(gitlab, runner, table, *, keys=""):
    """One more `[[runners]]`."""
    return f"""
[[runners]]
name = "{runner["description"]}"
url = "{gitlab.url}"
id = {runner["id"]}
token = "{runner["token"]}"
executor = "instance"
request_concurrency = 2
{keys}
{table}
"""


def add(manager, text):
    manager.write(manager.config.read_text() + text)


TIMED = ("echo at $(date +%s.%N)", "sleep 2", "echo at $(date +%s.%N)")


def overlap(gitlab, jobs):
    """How many of these TIMED jobs ran at once, by their own words: a slot is free before GitLab hears of the end."""
    moments = []
    for job in jobs:
        began, ended = [float(line[3:]) for line in output_lines(gitlab.trace(job)) if line.startswith("at ")]
        moments += [(began, 1), (ended, -1)]
    return max(itertools.accumulate(step for _, step in sorted(moments)))


def jobs_of(gitlab, count, *script, runner=None):
    runner_id = None if runner is None else runner["id"]
    return [gitlab.enqueue(make_job(script=script or TIMED), runner_id=runner_id) for _ in range(count)]


@pytest.mark.parametrize(
    "keywords", [{"runner_keys": "limit = 2"}, {"concurrent": 2}, {"machines": 2}], ids=["limit", "concurrent", "slots"]
)
def test_no_more_jobs_at_once_than_allowed_and_all_of_them_run(gitlab, make_manager, keywords):
    manager = make_manager(**{"machines": 4, "capacity": 1, "idle": 2} | keywords).start()
    jobs = jobs_of(gitlab, 5)
    views = gitlab.wait_for(*jobs, timeout=90)
    assert {view.state for view in views} == {"success"}
    assert overlap(gitlab, jobs) == 2
    settled(gitlab, manager)


def test_a_burst_is_drained_without_waiting_for_check_interval(gitlab, make_manager):
    manager = make_manager(machines=1, capacity=8, idle=8, top="").start()
    wait_until(lambda: manager.events("manager_started"), 30, "the start")
    wait_until(lambda: manager.rows("SELECT 1 FROM instances WHERE state = 'ready'"), 60, "a machine")
    jobs = jobs_of(gitlab, 8, "sleep 3")
    views = gitlab.wait_for(*jobs, timeout=60)
    handed_out = [view.assigned_at for view in views]
    # check_interval is 1 s: eight polls one by one would take seven
    assert max(handed_out) - min(handed_out) < 3
    settled(gitlab, manager)


def test_strict_check_interval_asks_one_by_one(gitlab, make_manager):
    manager = make_manager(
        machines=1, capacity=4, idle=4, request_concurrency=1, runner_keys="strict_check_interval = true"
    )
    manager.start()
    wait_until(lambda: manager.events("manager_started"), 30, "the start")
    wait_until(lambda: manager.rows("SELECT 1 FROM instances WHERE state = 'ready'"), 60, "a machine")
    views = gitlab.wait_for(*jobs_of(gitlab, 4, "true"), timeout=60)
    at = sorted(view.assigned_at for view in views)
    assert all(later - earlier > 0.9 for earlier, later in itertools.pairwise(at))
    settled(gitlab, manager)


def test_a_job_is_asked_for_only_while_there_is_a_slot(gitlab, make_manager):
    manager = make_manager(machines=1, idle=1).start()
    first, second = jobs_of(gitlab, 2, "echo begun", "sleep 4")
    gitlab.wait_for_trace(first, "begun", timeout=60)
    polls = gitlab.add_fault("delay", "request", count=None)
    held = "SELECT lease_id FROM leases WHERE state IN ('granted', 'running')"
    while manager.rows(held):
        asked, job = gitlab.fault_struck(polls), gitlab.job(second)
        if manager.rows(held):
            assert (asked, job.state) == (0, "pending")
    views = gitlab.wait_for(first, second, timeout=60)
    assert {view.state for view in views} == {"success"}
    settled(gitlab, manager)


def test_runners_that_share_a_pool_share_its_machines(gitlab, make_manager):
    manager = make_manager(machines=1, pool=pool(machines=1, idle=1) + SHARED)
    other = gitlab.create_runner(description="other")
    add(manager, entry(gitlab, other, "  [runners.autoscaler]\n" + SHARED))
    manager.start()
    jobs = jobs_of(gitlab, 2, "true", runner=manager.runner) + jobs_of(gitlab, 2, "true", runner=other)
    views = gitlab.wait_for(*jobs, timeout=90)
    assert {view.state for view in views} == {"success"}
    assert {view.runner_id for view in views} == {manager.runner["id"], other["id"]}
    assert len(manager.rows("SELECT instance_id FROM instances")) == 1
    assert manager.rows("SELECT DISTINCT pool FROM jobs") == [{"pool": "shared"}]
    settled(gitlab, manager)


def test_when_runners_outnumber_the_slots_a_held_poll_starves_nobody(gitlab, make_manager):
    gitlab.set_knobs(hold_s=50)
    manager = make_manager(machines=1, pool=pool(machines=1, idle=1) + SHARED)
    others = [gitlab.create_runner(description=f"other {number}") for number in range(2)]
    for other in others:
        add(manager, entry(gitlab, other, "  [runners.autoscaler]\n" + SHARED))
    manager.start()
    wait_until(lambda: manager.events("manager_started"), 30, "the start")
    wait_until(lambda: manager.rows("SELECT 1 FROM instances WHERE state = 'ready'"), 60, "a machine")
    for runner in (others[1], manager.runner, others[0]):
        (job,) = jobs_of(gitlab, 1, "true", runner=runner)
        (view,) = gitlab.wait_for(job, timeout=30)
        assert view.state == "success"
    settled(gitlab, manager)


def test_two_servers_at_once_and_one_that_is_down_holds_up_nobody(gitlab, make_manager):
    with PretendGitLab(threads=32, knobs=Knobs(update_interval_s=1)) as second:
        manager = make_manager(machines=1, idle=1)
        other = second.create_runner(description="elsewhere")
        add(manager, entry(second, other, pool(machines=1, idle=1)))
        manager.start()
        here, there = jobs_of(gitlab, 1, "echo here"), jobs_of(second, 1, "echo there")
        assert gitlab.wait_for(*here, timeout=60)[0].state == "success"
        assert second.wait_for(*there, timeout=60)[0].state == "success"
        second.outage()
        views = gitlab.wait_for(*jobs_of(gitlab, 2, "true"), timeout=60)
        assert {view.state for view in views} == {"success"}
        late = jobs_of(second, 1, "echo late")
        second.end_outage()
        assert second.wait_for(*late, timeout=60)[0].state == "success"
        assert manager.events("runner_unhealthy") == []
        assert second.violations() == []
        settled(gitlab, manager)
        manager.stop()


def test_two_runners_of_one_server_have_limits_of_their_own(gitlab, make_manager):
    manager = make_manager(machines=4, idle=4, runner_keys="limit = 1", pool=pool(machines=4, idle=4) + SHARED)
    other = gitlab.create_runner(description="other")
    add(manager, entry(gitlab, other, "  [runners.autoscaler]\n" + SHARED, keys="limit = 2"))
    manager.start()
    mine = jobs_of(gitlab, 2, runner=manager.runner)
    theirs = jobs_of(gitlab, 4, runner=other)
    views = gitlab.wait_for(*mine, *theirs, timeout=90)
    assert {view.state for view in views} == {"success"}
    assert overlap(gitlab, mine) == 1
    assert overlap(gitlab, theirs) == 2
    settled(gitlab, manager)
