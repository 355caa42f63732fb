"""One job from GitLab to a machine and back, also when the manager is killed in the middle of it."""

from __future__ import annotations

import signal

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until


def test_a_job_runs_on_a_machine_and_gitlab_hears_of_it(gitlab, make_manager):
    make_manager().start()
    job = gitlab.enqueue(make_job(script=["echo hello", "echo $CI_JOB_ID"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert (view.state, view.failure_reason, view.exit_code) == ("success", "", 0)
    lines = output_lines(gitlab.trace(job))
    assert "hello" in lines
    assert str(job) in lines


def test_a_failing_script_tells_its_exit_code(gitlab, make_manager):
    make_manager().start()
    job = gitlab.enqueue(make_job(script=["echo before", "exit 7", "echo after"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 7)
    assert "after" not in output_lines(gitlab.trace(job))


def test_law_4_a_job_survives_kill_9_in_the_middle_of_its_script(gitlab, make_manager):
    manager = make_manager().start()
    job = gitlab.enqueue(make_job(script=["for i in $(seq 1 40); do echo line $i; sleep 0.1; done"]))
    gitlab.wait_for_trace(job, "line 5", timeout=30)
    manager.kill()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.exit_code, view.attempts) == ("success", 0, 1)
    lines = [line for line in output_lines(gitlab.trace(job)) if line.startswith("line ")]
    assert lines == [f"line {n}" for n in range(1, 41)]


def test_sigterm_leaves_the_job_running_and_the_next_start_follows_it(gitlab, make_manager):
    manager = make_manager().start()
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 4", "echo ended"]))
    gitlab.wait_for_trace(job, "begun", timeout=30)
    assert manager.stop(signal.SIGTERM, timeout=10) == 0
    assert gitlab.job(job).state == "running"
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    assert "ended" in output_lines(gitlab.trace(job))


def test_law_6_machines_are_gone_after_their_idle_time(gitlab, make_manager):
    manager = make_manager(idle_time="1s").start()
    job = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(job, timeout=30)
    states = "SELECT DISTINCT state FROM instances"
    wait_until(lambda: manager.rows(states) == [{"state": "gone"}], 30, "the end of the machines")
    assert manager.machines() == []
