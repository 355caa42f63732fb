"""What each signal does to a manager and to its jobs: stop and leave, abort, drain, reload, exit at once."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

HOST = {"executor": "shell", "pool": "", "fleet_keys": "allow_same_user = true"}
STATE = "SELECT state FROM managers"
ALIVE = "SELECT state FROM instances WHERE state NOT IN ('deleting', 'gone')"


def counting(seconds: float) -> dict:
    """A job that prints a line each tenth of a second."""
    return make_job(script=["echo begun", f"for i in $(seq 1 {round(seconds * 10)}); do echo line $i; sleep 0.1; done"])


def counted(gitlab, job) -> list[str]:
    return [line for line in output_lines(gitlab.trace(job)) if line.startswith("line ")]


def lines(seconds: float) -> list[str]:
    return [f"line {n}" for n in range(1, round(seconds * 10) + 1)]


def reasons(manager) -> list[str]:
    found = manager.rows("SELECT reason FROM journal WHERE kind = 'manager' ORDER BY seq")
    return [row["reason"] for row in found]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def status(manager) -> tuple[int, str, list[str]]:
    """What `fleetctl status` says: its exit code, the manager's state, why it takes no jobs."""
    command = [sys.executable, "-m", "fleet.cli.main", "status", "--config", str(manager.config), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stdout)["manager"]
    return done.returncode, said["state"], [each["slug"] for each in said["not_ready"]]


def stop_in_time(manager, number) -> int:
    """A tenth of a second on a quiet host; whatever waits for the outside would wait for longer than this."""
    began = time.monotonic()
    code = manager.stop(number, timeout=20)
    assert time.monotonic() - began < 6
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signals_end_the_manager_at_once_and_leave_its_jobs(gitlab, make_manager, number):
    manager = make_manager().start()
    job = gitlab.enqueue(counting(6))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    assert stop_in_time(manager, number) == 0
    assert manager.rows(STATE) == [{"state": "stopped"}]
    assert "its jobs go on" in reasons(manager)[-1]
    assert [each["state"] for each in manager.events("manager_state_changed")] == ["stopping"]
    assert len(manager.machines()) == 1
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.exit_code, view.attempts) == ("success", 0, 1)
    assert counted(gitlab, job) == lines(6)


def test_a_service_that_is_told_twice_to_stop_leaves_its_jobs_all_the_same(gitlab, make_manager):
    manager = make_manager().start()
    job = gitlab.enqueue(counting(5))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    manager.send(signal.SIGTERM)
    assert stop_in_time(manager, signal.SIGTERM) == 0
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)


def test_a_poll_that_gitlab_holds_ends_at_once(gitlab, make_manager):
    gitlab.set_knobs(hold_s=50.0)
    manager = make_manager().start()
    asking = "SELECT * FROM reservations WHERE state = 'asking'"
    first = gitlab.enqueue(make_job(script=["true"]))  # the first answer brings the cursor that GitLab holds a poll by
    gitlab.wait_for(first, timeout=30)
    wait_until(lambda: manager.rows(asking), 20, "a poll")
    time.sleep(1.5)  # a poll that is not held would have come back
    assert stop_in_time(manager, signal.SIGTERM) == 0
    assert manager.rows(asking) == []


def test_jobs_that_are_assigned_while_the_manager_stops_survive(gitlab, make_manager):
    """Whether a job is taken in or given back in that moment, GitLab hears its end, and each script runs once."""
    gitlab.set_knobs(ack_within_s=5.0)
    manager = make_manager(machines=3).start()
    warm = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(warm, timeout=30)
    ran = manager.directory / "ran"
    jobs = []
    for _ in range(3):
        jobs += [gitlab.enqueue(make_job(script=[f"echo $CI_JOB_ID >> {ran}"])) for _ in range(4)]
        wait_until(lambda first=jobs[-4]: gitlab.job(first).state != "pending", 20, "the assignment")
        assert stop_in_time(manager, signal.SIGTERM) == 0
        gitlab.manager_restarted()
        manager.start()
    views = gitlab.wait_for(*jobs, timeout=60)
    assert {view.state for view in views} == {"success"}
    assert sorted(ran.read_text().split()) == [str(job) for job in jobs]


def test_abort_ends_the_jobs_and_tells_gitlab_that_the_runner_was_interrupted(gitlab, make_manager):
    manager = make_manager(fleet_keys='on_term = "drain"')
    manager.arguments = ["--on-term=abort"]  # beats the file, also after a reload
    manager.start()
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 300"]))
    gitlab.wait_for_trace(job, "begun", timeout=30)
    assert manager.stop(signal.SIGTERM, timeout=25) == 0
    view = gitlab.job(job)
    assert (view.state, view.failure_reason) == ("failed", "runner_interrupted")
    assert [each["state"] for each in manager.events("manager_state_changed")] == ["aborting"]
    assert manager.rows("SELECT state FROM leases") == [{"state": "released"}]
    assert reasons(manager)[-1] == "stopped; its jobs were aborted"


def test_an_aborted_job_has_the_reason_that_an_older_gitlab_understands(gitlab, make_manager):
    manager = make_manager(fleet_keys='on_term = "abort"').start()
    features = {
        "trace_sections": True,
        "failure_reasons": ["unknown_failure", "script_failure", "runner_system_failure"],
    }
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 300"], features=features))
    gitlab.wait_for_trace(job, "begun", timeout=30)
    assert manager.stop(signal.SIGTERM, timeout=25) == 0
    view = gitlab.job(job)
    assert view.state == "failed"
    assert view.failure_reason in ("runner_system_failure", "unknown_failure")


def test_draining_takes_no_more_jobs_and_waits_for_those_that_run(gitlab, make_manager):
    manager = make_manager(idle_time="10m").start()
    job = gitlab.enqueue(counting(6))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    assert status(manager) == (0, "running", [])
    manager.send(signal.SIGQUIT)
    wait_until(lambda: manager.rows(STATE) == [{"state": "draining"}], 10, "the word in the managers row")
    assert status(manager) == (1, "draining", ["draining"])
    late = gitlab.enqueue(make_job(script=["true"]))
    assert manager.wait(30) == 0
    assert gitlab.job(job).state == "success"
    assert counted(gitlab, job) == lines(6)
    assert gitlab.job(late).state == "pending"
    assert len(manager.rows(ALIVE)) == 1, "machines are kept"
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(late, timeout=30)
    assert view.state == "success"
    assert len(manager.rows("SELECT * FROM instances")) == 1, "the kept machine was used again"


def test_draining_deletes_instances_where_that_is_wished(gitlab, make_manager):
    manager = make_manager(idle=2, idle_time="10m", pool_keys="delete_instances_on_shutdown = true").start()
    job = gitlab.enqueue(counting(3))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    assert manager.stop(signal.SIGQUIT, timeout=40) == 0
    assert gitlab.job(job).state == "success"
    assert manager.rows(ALIVE) == []
    assert manager.machines() == []


def test_sigterm_drains_where_the_configuration_says_so(gitlab, make_manager):
    manager = make_manager(fleet_keys='on_term = "drain"').start()
    job = gitlab.enqueue(counting(3))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    assert manager.stop(signal.SIGTERM, timeout=30) == 0
    assert gitlab.job(job).state == "success"


def test_sigterm_ends_a_drain_and_leaves_the_jobs(gitlab, make_manager):
    manager = make_manager().start()
    job = gitlab.enqueue(counting(8))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    manager.send(signal.SIGQUIT)
    wait_until(lambda: manager.rows(STATE) == [{"state": "draining"}], 10, "the drain")
    assert stop_in_time(manager, signal.SIGTERM) == 0
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)


def test_a_second_interrupt_aborts_and_a_third_exits_at_once(gitlab, make_manager):
    manager = make_manager(fleet_keys='on_term = "drain"').start()
    job = gitlab.enqueue(make_job(script=["echo begun", "trap '' TERM", "sleep 300"]))
    gitlab.wait_for_trace(job, "begun", timeout=30)
    manager.send(signal.SIGINT)
    wait_until(lambda: manager.rows(STATE) == [{"state": "draining"}], 10, "the drain")
    outage = gitlab.add_fault("status", "update", status=503, count=None)  # the end cannot be told, so aborting waits
    manager.send(signal.SIGINT)
    wait_until(lambda: manager.rows(STATE) == [{"state": "aborting"}], 10, "the abort")
    wait_until(lambda: manager.rows("SELECT stop FROM jobs") == [{"stop": "interrupt"}], 10, "the order to abort")
    began = time.monotonic()
    manager.send(signal.SIGINT)
    assert manager.wait(10) == -signal.SIGINT
    assert time.monotonic() - began < 6
    gitlab.lift_fault(outage)
    gitlab.manager_restarted()
    manager.start()  # what was left half done is brought to its end
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.failure_reason) == ("failed", "runner_interrupted")


def test_sighup_reads_the_configuration_again_even_unchanged(gitlab, make_manager):
    manager = make_manager().start()
    wait_until(lambda: manager.events("manager_started"), 20, "the start")
    manager.send(signal.SIGHUP)
    wait_until(lambda: manager.events("configuration_reloaded"), 10, "the reload")
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_kills_no_job_on_this_host(gitlab, make_manager, how):
    manager = make_manager(**HOST).start()
    pid_file = manager.directory / "pid"
    job = gitlab.enqueue(make_job(script=[f"echo $$ > {pid_file}", *counting(6)["steps"][0]["script"]]))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    pid = int(pid_file.read_text())
    if how == signal.SIGKILL:
        manager.kill()
    else:
        assert stop_in_time(manager, how) == 0
        gitlab.manager_restarted()
    assert is_alive(pid)
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    assert counted(gitlab, job) == lines(6)


def test_the_end_of_the_managers_whole_session_kills_no_job_on_this_host(gitlab, make_manager):
    """What a terminal that is closed does: SIGHUP and SIGTERM to everything in the session."""
    manager = make_manager(**HOST).start()
    job = gitlab.enqueue(counting(5))
    gitlab.wait_for_trace(job, "line 3", timeout=30)
    session = os.getsid(manager.pid)
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        pid = int(stat.parent.name)
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # the tests are in this session too: those that come from the manager only
        if int(fields[3]) == session and int(fields[1]) == manager.pid:
            os.kill(pid, signal.SIGTERM)
    assert stop_in_time(manager, signal.SIGTERM) == 0
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    assert counted(gitlab, job) == lines(5)
