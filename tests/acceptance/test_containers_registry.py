"""Private registries: whose credentials open them, and that nobody else sees these."""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.containers import manager_of


@contextlib.contextmanager
def argument_lists():
    """Every argument list and environment that other programs of this host show, while the block runs."""
    seen, is_over = set(), threading.Event()

    def look():
        while not is_over.is_set():
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def test_a_password_opens_the_registry_and_is_in_no_argument_list_log_or_file(
    gitlab, make_manager, docker_engine, docker_registry
):
    name = docker_registry.push(docker_engine, "busy", repository="group/sealed")
    manager = manager_of(make_manager, docker_engine, pull='"always"').start()
    secret = docker_registry.password
    variables = [
        {"key": "DOCKER_AUTH_CONFIG", "value": json.dumps({"auths": docker_registry.auths()}), "masked": True},
        {"key": "LINES", "value": f"1\n{secret}"},
    ]
    with argument_lists() as seen:
        job = gitlab.enqueue(make_job(image=name, script=["echo pulled"], variables=variables))
        (view,) = gitlab.wait_for(job, timeout=60)
    lines = output_lines(gitlab.trace(job))
    assert view.state == "success", "\n".join(lines)
    assert "Authenticating with credentials from $DOCKER_AUTH_CONFIG" in lines
    assert any(b"pull" in each and name.encode() in each for each in seen)
    assert not any(secret.encode() in each for each in seen)
    assert secret not in "\n".join(lines)
    assert secret not in manager.log()
    for machine in manager.machines():
        kept = [path for path in machine.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert kept == []


def test_a_registry_that_refuses_is_a_setting_to_mend(gitlab, make_manager, docker_engine, docker_registry):
    name = docker_registry.push(docker_engine, "busy", repository="group/shut")
    manager_of(make_manager, docker_engine, pull='"always"').start()
    job = gitlab.enqueue(make_job(image=name, script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    last = output_lines(gitlab.trace(job))[-1]
    assert (view.state, view.failure_reason) == ("failed", "runner_configuration_error"), last
    assert name in last
    assert "DOCKER_AUTH_CONFIG" in last
