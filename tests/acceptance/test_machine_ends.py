"""Machines that end in the middle of a job, and machines that cannot be cleaned: the slot and the job are seen to."""

from __future__ import annotations

import json
import os
import signal

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.reasons import in_state, journal, started
from tests.acceptance.standing import settled

ENDLESS = "echo begun; while sleep 0.2; do echo tick; done"


def pid_of(folder) -> int:
    """The process that a local machine is."""
    return int(json.loads((folder / "run.json").read_text())["pid"])


def test_a_machine_killed_in_the_middle_of_a_job_fails_it_when_it_is_gone(gitlab, make_manager):
    manager = started(make_manager())
    job = gitlab.enqueue(make_job(script=[ENDLESS]))
    gitlab.wait_for_trace(job, "begun", timeout=60)
    [machine] = manager.machines()
    os.kill(pid_of(machine), signal.SIGKILL)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason, view.attempts) == ("failed", "runner_system_failure", 1)
    assert "its process was killed" in gitlab.trace(job).decode()
    [row] = manager.rows("SELECT state, gone_at FROM instances")
    assert row["state"] == "gone"
    assert row["gone_at"] <= view.ended_at + 0.5, "GitLab was told only when the machine could do no more"
    assert journal(manager, "machine_gone")

    second = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    settled(gitlab, manager)


def test_a_machine_whose_server_is_stopped_for_a_while_goes_on_with_its_job(gitlab, make_manager):
    manager = started(make_manager())
    job = gitlab.enqueue(make_job(script=["for i in $(seq 1 60); do echo line $i; sleep 0.1; done"]))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    [machine] = manager.machines()
    os.kill(pid_of(machine), signal.SIGSTOP)
    size = len(gitlab.trace(job))
    wait_until(lambda: _is_stopped(pid_of(machine)), 10, "the stop")
    wait_until(lambda: len(gitlab.trace(job)) >= size and gitlab.job(job).state == "running", 5)
    os.kill(pid_of(machine), signal.SIGCONT)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    lines = [line for line in gitlab.trace(job).decode().splitlines() if "line " in line and "seq" not in line]
    assert len(lines) == 60
    settled(gitlab, manager)


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return ") T " in file.read()


def test_a_machine_that_cannot_be_cleaned_is_lost_and_the_next_job_gets_another(gitlab, make_manager):
    """The job turns the folder of tombstones into a file, so the agent can never say that a lease is over."""
    keys = '[runners.autoscaler.fleet]\ncleaning_timeout = "3s"'
    manager = started(make_manager(machines=1, pool_keys=keys))
    script = "cd $HOME/.fleet-agent; rm -rf tombstones; echo > tombstones"
    job = gitlab.enqueue(make_job(script=[script]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    second = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    assert "could not be cleaned" in journal(manager, "unhealthy")[0]
    assert any("within 3 s" in each for each in journal(manager, "not_cleaned"))
    states = [row["state"] for row in manager.rows("SELECT state FROM leases ORDER BY granted_at")]
    assert states[0] == "lost"
    settled(gitlab, manager)


def test_two_machines_killed_while_idle_are_replaced_before_a_job_asks_for_them(gitlab, make_manager):
    manager = started(make_manager(idle=2, machines=4, idle_time="10m", pool_keys='update_interval = "1s"'))
    before = wait_until(lambda: len(in_state(manager, "ready")) == 2 and in_state(manager, "ready"), 60)
    for machine in manager.machines():
        os.kill(pid_of(machine), signal.SIGKILL)
    wait_until(lambda: len(in_state(manager, "ready")) == 2 and not set(in_state(manager, "ready")) & set(before), 60)
    job = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    settled(gitlab, manager)


def test_a_job_that_kills_its_supervisor_harms_itself_alone(gitlab, make_manager):
    """Where the agent is the job's own user it can: the machine is looked at before the next job."""
    manager = started(make_manager(machines=1))
    job = gitlab.enqueue(make_job(script=["echo begun", "kill -9 $PPID", "sleep 60"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    assert "supervisor died" in gitlab.trace(job).decode()
    second = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    settled(gitlab, manager)


def test_a_job_that_kills_its_machine_takes_no_other_with_it(gitlab, make_manager):
    manager = started(make_manager(machines=2))
    other = gitlab.enqueue(make_job(script=["for i in $(seq 1 80); do sleep 0.1; done"]))
    gitlab.wait_for(other, states=["running"], timeout=60)
    kill = "cd $HOME/..; kill -9 $(sed 's/.*\"pid\": \\([0-9]*\\).*/\\1/' run.json); sleep 60"
    job = gitlab.enqueue(make_job(script=[kill]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    (view,) = gitlab.wait_for(other, timeout=60)
    assert view.state == "success"
    settled(gitlab, manager)


def test_daemons_of_a_job_are_gone_before_the_next_one_has_the_slot(gitlab, make_manager):
    manager = started(make_manager(machines=1, idle_time="10m"))
    script = [
        "setsid nohup sh -c 'sleep 98765 & wait' >/dev/null 2>&1 &",
        "(setsid sh -c '(sleep 98766 &) &' </dev/null >/dev/null 2>&1 &)",
        "env -i setsid sleep 98767 </dev/null >/dev/null 2>&1 &",
        "sleep 0.3; echo $(pgrep -f 'sleep 9876[567]' | wc -l) running",
    ]
    job = gitlab.enqueue(make_job(script=script))
    gitlab.wait_for(job, timeout=60)
    second = gitlab.enqueue(make_job(script=["echo hello; pgrep -fx 'sleep 9876[567]' && echo LEFT || echo clean"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    lines = gitlab.trace(second).decode()
    assert "LEFT" not in lines.replace("echo LEFT", "")
    settled(gitlab, manager)
