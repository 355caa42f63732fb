"""Jobs in containers, from GitLab through a real manager and a real engine, and back."""

from __future__ import annotations

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.containers import manager_of
from tests.docker.images import image


def test_a_job_runs_in_its_image(gitlab, make_manager, docker_engine):
    manager_of(make_manager, docker_engine).start()
    name = image(docker_engine, "busy")
    job = gitlab.enqueue(make_job(image=name, script=["cat /etc/passwd | head -2", "echo image $CI_JOB_IMAGE", "pwd"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    lines = output_lines(gitlab.trace(job))
    assert (view.state, view.failure_reason, view.exit_code) == ("success", "", 0), "\n".join(lines)
    assert f"image {name}" in lines
    assert "app:x:1234:1234:app:/home/app:/bin/sh" in lines
    assert "/builds/demo/project" in lines
