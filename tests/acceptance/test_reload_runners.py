"""A changed configuration file comes into force while jobs run: what it says of runners."""

from __future__ import annotations

import signal

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

ENTRY = """
[[runners]]
name = "{name}"
url = "{url}"
id = {id}
token = "{token}"
executor = "{executor}"
[runners.autoscaler.fleet]
pool = "shared"
"""
SHARED = '[runners.autoscaler.fleet]\n  pool = "shared"'


def entry(gitlab, runner, name="second", executor="instance") -> str:
    return ENTRY.format(url=gitlab.url, name=name, executor=executor, **runner)


def reloads(manager) -> int:
    return len(manager.events("configuration_reloaded"))


def rewrite(manager, text: str) -> None:
    """Write the file, and wait until it is in force."""
    before = reloads(manager)
    manager.write(text)
    wait_until(lambda: reloads(manager) > before, 20, "the reload")


def change(manager, old: str, new: str) -> None:
    text = manager.config.read_text()
    assert old in text
    rewrite(manager, text.replace(old, new))


def begun(gitlab, **options) -> int:
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 6", "echo ended"]), **options)
    gitlab.wait_for_trace(job, "begun", timeout=40)
    return job


def test_a_new_runner_takes_jobs_at_once(gitlab, make_manager):
    manager = make_manager(pool_keys=SHARED).start()
    wait_until(lambda: manager.events("manager_started"), 30, "the start")
    second = gitlab.create_runner(description="second")
    job = gitlab.enqueue(make_job(script=["true"]), runner_id=second["id"])
    rewrite(manager, manager.config.read_text() + entry(gitlab, second))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    assert manager.events("configuration_reloaded")[0]["file"] == str(manager.config)


def test_a_removed_runner_asks_no_more_and_its_job_is_reported(gitlab, make_manager):
    manager = make_manager(pool_keys=SHARED)
    text = manager.config.read_text()
    second = gitlab.create_runner(description="second")
    manager.write(text + entry(gitlab, second))
    manager.start()
    job = begun(gitlab, runner_id=second["id"])
    rewrite(manager, text)
    late = gitlab.enqueue(make_job(script=["true"]), runner_id=second["id"])
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    assert "ended" in output_lines(gitlab.trace(job))
    other = gitlab.enqueue(make_job(script=["true"]), runner_id=manager.runner["id"])
    gitlab.wait_for(other, timeout=30)
    assert gitlab.job(late).state == "pending"
    rewrite(manager, text + entry(gitlab, second))  # and back again
    (view,) = gitlab.wait_for(late, timeout=30)
    assert view.state == "success"


def test_an_entry_that_cannot_run_is_stopped_while_others_run_and_its_job_goes_on(gitlab, make_manager):
    manager = make_manager(pool_keys=SHARED)
    text = manager.config.read_text()
    second = gitlab.create_runner(description="second")
    manager.write(text + entry(gitlab, second))
    manager.start()
    job = begun(gitlab, runner_id=second["id"])
    rewrite(manager, text + entry(gitlab, second, executor="kubernetes"))
    told = [each["problem"] for each in manager.events("configuration_problem")]
    assert any("kubernetes" in each and "fleet.toml:" in each for each in told)
    late = gitlab.enqueue(make_job(script=["true"]), runner_id=second["id"])
    other = gitlab.enqueue(make_job(script=["true"]), runner_id=manager.runner["id"])
    assert {view.state for view in gitlab.wait_for(job, other, timeout=40)} == {"success"}
    assert gitlab.job(late).state == "pending"
    rewrite(manager, text + entry(gitlab, second))
    (view,) = gitlab.wait_for(late, timeout=30)
    assert view.state == "success"


def test_a_job_keeps_what_it_was_started_with(gitlab, make_manager):
    manager = make_manager(runner_keys='environment = ["COLOUR=red"]').start()
    script = ["echo begun", "sleep 6", "echo colour $COLOUR"]
    job = gitlab.enqueue(make_job(script=script))
    gitlab.wait_for_trace(job, "begun", timeout=40)
    change(manager, "COLOUR=red", "COLOUR=green")
    later = gitlab.enqueue(make_job(script=["echo colour $COLOUR"]))
    gitlab.wait_for(job, later, timeout=40)
    assert "colour red" in output_lines(gitlab.trace(job))
    assert "colour green" in output_lines(gitlab.trace(later))


def test_concurrent_and_limit_hold_from_the_next_poll_on(gitlab, make_manager):
    manager = make_manager(concurrent=1, machines=4).start()
    script = ["echo begun", f"while [ ! -e {manager.directory}/go ]; do sleep 0.1; done"]
    jobs = [gitlab.enqueue(make_job(script=script)) for _ in range(4)]
    gitlab.wait_for_trace(jobs[0], "begun", timeout=40)
    assert running(gitlab) == 1
    change(manager, "concurrent = 1\n", "concurrent = 4\n")
    gitlab.wait_for_trace(jobs[3], "begun", timeout=40)
    change(manager, 'executor = "instance"\n', 'executor = "instance"\nlimit = 1\n')
    (manager.directory / "go").touch()
    assert {view.state for view in gitlab.wait_for(*jobs, timeout=40)} == {"success"}
    (manager.directory / "go").unlink()
    jobs = [gitlab.enqueue(make_job(script=script)) for _ in range(2)]
    gitlab.wait_for_trace(jobs[0], "begun", timeout=40)
    polled = len(manager.rows("SELECT * FROM journal"))
    wait_until(lambda: len(manager.rows("SELECT * FROM journal")) >= polled, 5, "some more planning")
    assert gitlab.job(jobs[1]).state == "pending"
    (manager.directory / "go").touch()
    assert {view.state for view in gitlab.wait_for(*jobs, timeout=40)} == {"success"}


def running(gitlab) -> int:
    return sum(gitlab.counts().get(state, 0) for state in ("assigned", "running"))


def test_the_log_level_and_what_needs_a_restart_are_told(gitlab, make_manager):
    manager = make_manager().start()
    job = begun(gitlab)
    elsewhere = manager.directory / "elsewhere"
    text = manager.config.read_text()
    manager.write(
        text.replace("check_interval = 1\n", 'check_interval = 2\nlog_level = "error"\n').replace(
            f'state_dir = "{manager.state}"', f'state_dir = "{elsewhere}"'
        )
    )
    told = wait_until(lambda: manager.events("restart_needed"), 20, "the warning")
    assert "fleet.state_dir" in told[0]["keys"]
    (view,) = gitlab.wait_for(job, timeout=40)
    assert view.state == "success"
    assert manager.events("job_reported") == [], "information is not logged any more"
    assert not elsewhere.exists()
    assert manager.stop(signal.SIGTERM, timeout=10) == 0
