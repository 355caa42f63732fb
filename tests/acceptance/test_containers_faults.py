"""What goes wrong around containers: engines, managers and supervisors that end, jobs that are stopped."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.containers import manager_of
from tests.acceptance.manager import wait_until
from tests.docker.images import image

JOB = "com.gitlab.gitlab-runner.job.id"
LOOP = "for i in $(seq 1 60); do echo line $i; sleep 0.1; done"


def left_of(engine, job, gitlab):
    """Containers and networks of this job; other tests use the engine, too, and their GitLabs count alike."""
    found = []
    for listing in (("ps", "--all"), ("network", "ls")):
        lines = engine.docker(*listing, "--filter", f"label={JOB}={job}", "--format", "{{.ID}} {{.Labels}}")
        found += [line.split()[0] for line in str(lines).splitlines() if f"{gitlab.url}/" in line]
    return found


def supervisor_of(manager):
    """The process that runs the one job of this manager."""
    for machine in manager.machines():
        for path in (machine / "home" / ".fleet-agent" / "jobs").glob("*/state.json"):
            state = json.loads(path.read_text())
            if state["state"] == "running":
                return state["pid"]
    return None


def test_a_canceled_job_ends_its_processes_runs_after_script_and_leaves_nothing(gitlab, make_manager, docker_engine):
    manager_of(make_manager, docker_engine).start()
    script = ["trap 'echo told to end; exit 9' TERM", "echo begun", "while true; do echo tick; sleep 0.3; done"]
    job = gitlab.enqueue(
        make_job(image=image(docker_engine, "full"), script=script, after_script=["echo after as $CI_JOB_STATUS"])
    )
    gitlab.wait_for_trace(job, "O begun", timeout=60)
    gitlab.cancel(job)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "canceled"
    lines = output_lines(gitlab.trace(job))
    assert "told to end" in lines
    assert "after as canceled" in lines
    wait_until(lambda: not left_of(docker_engine, job, gitlab), 30, "the end of the containers")


def test_law_4_a_container_job_with_a_service_survives_kill_9_of_the_manager(gitlab, make_manager, docker_engine):
    manager = manager_of(make_manager, docker_engine).start()
    web = {"name": image(docker_engine, "web"), "alias": "site"}
    script = [LOOP, "wget -q -O - http://site:8080/"]
    job = gitlab.enqueue(make_job(image=image(docker_engine, "busy"), services=[web], script=script))
    gitlab.wait_for_trace(job, "O line 5", timeout=60)
    assert left_of(docker_engine, job, gitlab), "what is asked for at the end is there before"
    manager.kill()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    lines = output_lines(gitlab.trace(job))
    assert (view.state, view.attempts) == ("success", 1), "\n".join(lines)
    assert [each for each in lines if each.startswith("line ")] == [f"line {n}" for n in range(1, 61)]
    assert any(each.startswith("hello from web") for each in lines)
    wait_until(lambda: not left_of(docker_engine, job, gitlab), 30, "the end of the containers")


def test_law_9_a_supervisor_that_is_killed_leaves_containers_and_files_that_clean_removes(
    gitlab, make_manager, docker_engine, tmp_path
):
    builds = tmp_path / "builds"
    manager = manager_of(make_manager, docker_engine, volumes=f'["/cache", "{builds}:/builds"]').start()
    web = {"name": image(docker_engine, "web"), "alias": "site"}
    secret = {"key": "KEY_FILE", "value": "word-of-a-file", "file": True}
    job = gitlab.enqueue(
        make_job(
            image=image(docker_engine, "busy"),
            services=[web],
            variables=[secret],
            script=["echo kept > kept", "echo begun", "sleep 600"],
        )
    )
    gitlab.wait_for_trace(job, "O begun", timeout=60)
    assert [path.read_text() for path in builds.rglob("KEY_FILE")] == ["word-of-a-file"]
    os.kill(wait_until(lambda: supervisor_of(manager)), signal.SIGKILL)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    wait_until(lambda: not left_of(docker_engine, job, gitlab), 60, "the end of the containers")
    open_leases = "SELECT 1 FROM leases WHERE state NOT IN ('released', 'lost')"
    wait_until(lambda: not manager.rows(open_leases), 60, "the end of the lease")
    assert [path.name for path in builds.rglob("*") if path.is_file()] == ["kept"]
    again = gitlab.enqueue(make_job(image=image(docker_engine, "busy"), script=["echo once more"]))
    assert gitlab.wait_for(again, timeout=60)[0].state == "success"


def test_an_engine_that_is_restarted_fails_the_job_as_ours(gitlab, make_manager, own_engine):
    manager_of(make_manager, own_engine).start()
    name = image(own_engine, "busy")
    job = gitlab.enqueue(make_job(image=name, script=["echo begun", "sleep 600"]))
    gitlab.wait_for_trace(job, "O begun", timeout=60)
    own_engine.restart()
    (view,) = gitlab.wait_for(job, timeout=90)
    lines = output_lines(gitlab.trace(job))
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "runner_system_failure", 0), "\n".join(lines)
    assert re.search("container engine was stopped|stopped from outside", lines[-1])
    again = gitlab.enqueue(make_job(image=name, script=["echo once more"]))
    (view,) = gitlab.wait_for(again, timeout=90)
    assert view.state == "success", "\n".join(output_lines(gitlab.trace(again)))
    wait_until(lambda: not left_of(own_engine, job, gitlab), 60, "the end of the containers")


def test_an_engine_that_is_away_fails_the_job_as_ours_and_says_so(gitlab, make_manager, docker_engine, tmp_path):
    class Away:
        host = f"unix://{tmp_path}/nobody.sock"

    manager_of(make_manager, Away()).start()
    job = gitlab.enqueue(make_job(image="busybox", script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=90)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    assert "the container engine does not answer" in output_lines(gitlab.trace(job))[-1]


def test_a_job_out_of_time_is_stopped_with_all_its_processes(gitlab, make_manager, docker_engine):
    manager_of(make_manager, docker_engine).start()
    script = ["trap '' TERM", "echo begun", "while true; do sleep 1; done"]
    job = gitlab.enqueue(make_job(image=image(docker_engine, "full"), script=script, timeout=8))
    (view,) = gitlab.wait_for(job, timeout=90)
    assert (view.state, view.failure_reason) == ("failed", "job_execution_timeout")
    wait_until(lambda: not left_of(docker_engine, job, gitlab), 30, "the end of the containers")


@pytest.mark.parametrize("kept", [True, False])
def test_memory_that_runs_out_is_told(gitlab, make_manager, docker_engine, kept):
    manager_of(make_manager, docker_engine, 'memory = "16m"\n  memory_swap = "16m"').start()
    eat = "x=a; while true; do x=$x$x; done" if kept else "(x=a; while true; do x=$x$x; done); echo survived"
    job = gitlab.enqueue(make_job(image=image(docker_engine, "busy"), script=[eat]))
    (view,) = gitlab.wait_for(job, timeout=60)
    lines = output_lines(gitlab.trace(job))
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 137), "\n".join(lines)
    assert "the container ran out of memory: its limit of 16 MiB was reached" in lines[-1]
