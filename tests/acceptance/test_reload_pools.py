"""A changed configuration file comes into force while jobs run: what it says of pools and their machines."""

from __future__ import annotations

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.test_reload_runners import begun, change, rewrite

NAMED = '[runners.autoscaler.fleet]\n  pool = "{}"'
LIVING = "SELECT instance_id, pool, state FROM instances WHERE state NOT IN ('deleting', 'gone') ORDER BY instance_id"
GONE = "SELECT instance_id FROM instances WHERE state = 'gone' ORDER BY instance_id"


def living(manager) -> list[str]:
    return [row["instance_id"] for row in manager.rows(LIVING)]


def gone(manager) -> list[str]:
    return [row["instance_id"] for row in manager.rows(GONE)]


def has_machine(manager) -> None:
    wait_until(lambda: manager.events("manager_started"), 30, "the start")
    wait_until(lambda: manager.rows("SELECT * FROM instances WHERE state = 'ready'"), 40, "a machine")


def test_a_pool_that_is_no_longer_named_lets_its_job_end_and_its_machines_go(gitlab, make_manager):
    manager = make_manager(idle=2, idle_time="10m", machines=3, pool_keys=NAMED.format("old")).start()
    job = begun(gitlab)
    wait_until(lambda: len(living(manager)) == 3, 30, "the idle machines")
    before = living(manager)
    change(manager, 'pool = "old"', 'pool = "new"')
    (leased,) = [row["instance_id"] for row in manager.rows("SELECT instance_id FROM leases WHERE state = 'running'")]
    wait_until(lambda: set(before) - {leased} <= set(gone(manager)), 30, "the end of the idle machines of the old pool")
    assert leased not in gone(manager)
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    wait_until(lambda: set(before) <= set(gone(manager)), 30, "the end of the last machine of the old pool")
    late = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(late, timeout=30)
    assert view.state == "success"
    assert {row["pool"] for row in manager.rows(LIVING)} == {"new"}


def test_the_machines_of_a_retired_pool_go_although_its_settings_are_nowhere_but_in_the_store(gitlab, make_manager):
    manager = make_manager(idle=1, idle_time="10m", pool_keys=NAMED.format("old")).start()
    has_machine(manager)
    (machine,) = living(manager)
    manager.kill()
    manager.write(manager.config.read_text().replace('pool = "old"', 'pool = "new"').replace("idle_count = 1", ""))
    manager.start()
    wait_until(lambda: gone(manager) == [machine], 40, "the end of the machine")
    assert manager.machines() == []


def test_a_renamed_pool_keeps_its_machines_and_jobs(gitlab, make_manager):
    manager = make_manager(idle=1, idle_time="10m", pool_keys=NAMED.format("old")).start()
    job = begun(gitlab)
    wait_until(lambda: len(living(manager)) == 2, 30, "the idle machine")
    before = living(manager)
    change(manager, 'pool = "old"', 'pool = "new"\n  renamed_from = "old"')
    assert living(manager) == before
    later = gitlab.enqueue(make_job(script=["true"]))
    assert {view.state for view in gitlab.wait_for(job, later, timeout=40)} == {"success"}
    assert living(manager) == before
    assert gone(manager) == []
    assert {row["pool"] for row in manager.rows("SELECT pool FROM instances")} == {"new"}
    manager.kill()
    manager.start()  # the key stays in the file
    last = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(last, timeout=40)
    assert view.state == "success"
    assert living(manager) == before


def test_changed_policies_hold_at_once(gitlab, make_manager):
    manager = make_manager(idle=0, idle_time="0s", machines=3).start()
    wait_until(lambda: manager.events("manager_started"), 30, "the start")
    change(manager, "idle_count = 0", "idle_count = 2")
    wait_until(lambda: len(living(manager)) == 2, 30, "two idle machines")
    change(manager, "idle_count = 2", "idle_count = 1")
    wait_until(lambda: len(living(manager)) == 1, 30, "the end of one")
    change(manager, "max_instances = 3", "max_instances = 1")
    change(manager, "idle_count = 1", "idle_count = 3")
    job = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(job, timeout=30)
    assert len(living(manager)) == 1


def test_machines_of_older_settings_are_replaced_when_free_and_never_while_leased(gitlab, make_manager):
    config = '[runners.autoscaler.plugin_config]\n  shell = "/bin/sh"'
    manager = make_manager(idle=1, idle_time="10m", machines=4, pool_keys=config).start()
    job = begun(gitlab)
    wait_until(lambda: len(living(manager)) == 2, 30, "the idle machine")
    before = living(manager)
    (leased,) = [row["instance_id"] for row in manager.rows("SELECT instance_id FROM leases WHERE state = 'running'")]
    change(manager, 'shell = "/bin/sh"', 'shell = "/bin/bash"')
    free = next(each for each in before if each != leased)
    wait_until(lambda: gone(manager) == [free], 30, "the end of the free machine")
    assert manager.rows("SELECT state FROM instances WHERE instance_id = ?", leased)[0]["state"] in (
        "ready",
        "draining",
    )
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    wait_until(lambda: set(gone(manager)) == set(before), 30, "the end of the leased machine after its job")
    wait_until(lambda: len(living(manager)) == 1, 30, "its replacement")


def test_a_pool_that_works_is_not_broken_by_wrong_settings_of_its_plugin(gitlab, make_manager):
    config = '[runners.autoscaler.plugin_config]\n  shell = "/bin/sh"'
    manager = make_manager(idle=1, idle_time="10m", pool_keys=config).start()
    has_machine(manager)
    before = living(manager)
    manager.write(manager.config.read_text().replace('shell = "/bin/sh"', "shell = 7"))
    wait_until(lambda: manager.events("configuration_not_reloaded"), 30, "the refusal of the file")
    (refusal, *_) = manager.events("configuration_not_reloaded")
    assert "shell" in refusal["error"]
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    assert set(before) <= set(living(manager))


def test_a_change_that_outdates_nothing_keeps_every_machine(gitlab, make_manager):
    manager = make_manager(idle=1, idle_time="10m").start()
    has_machine(manager)
    before = living(manager)
    rewrite(
        manager,
        manager.config.read_text()
        .replace("max_instances = 2", "max_instances = 5\n  max_use_count = 9")
        .replace('idle_time = "10m"', 'idle_time = "20m"'),
    )
    job = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(job, timeout=30)
    assert set(before) <= set(living(manager))
    assert gone(manager) == []
