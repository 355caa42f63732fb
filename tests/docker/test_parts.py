"""The tests' own engine, images and registry do what the tests of containers rely on, and leave nothing behind."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.acceptance.manager import wait_until
from tests.docker.engine import MOUNTS, bridges_of, running_engine
from tests.docker.images import RECIPES, image
from tests.docker.registry import running_front


def test_containers_of_one_network_find_each_other_by_name(docker_engine):
    name = f"parts-{os.getpid()}"
    docker_engine.docker("network", "create", name)
    web, busy = image(docker_engine, "web"), image(docker_engine, "busy")
    try:
        docker_engine.docker(
            "run", "--detach", "--name", name, "--network", name, "--network-alias", "site", "--env", "GREETING=x", web
        )

        def page():
            return docker_engine.run("run", "--rm", "--network", name, busy, "wget", "-qO-", "http://site:8080/").stdout

        assert wait_until(page, 30, "the page") == b"hello from web x\n"
    finally:
        docker_engine.run("rm", "--force", "--volumes", name)
        docker_engine.docker("network", "rm", name)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_image_can_be_made_and_the_second_time_it_is_there(docker_engine, name):
    reference = image(docker_engine, name)
    first = docker_engine.docker("image", "inspect", "--format", "{{.Id}}", reference)
    assert image(docker_engine, name) == reference
    assert docker_engine.docker("image", "inspect", "--format", "{{.Id}}", reference) == first


def test_the_full_image_has_what_jobs_use(docker_engine):
    script = "git --version && git lfs version && curl --version >/dev/null && echo $BASH_VERSION | grep -c '^5'"
    assert docker_engine.docker("run", "--rm", image(docker_engine, "full"), "bash", "-c", script).endswith("1")


def test_the_registry_gives_nothing_without_a_login_and_its_front_can_refuse(docker_engine, docker_registry):
    reference = docker_registry.push(docker_engine, "busy")
    refused = docker_engine.run("pull", reference)
    assert refused.returncode != 0
    assert b"no basic auth credentials" in refused.stderr
    with docker_registry.logged_in() as folder:
        docker_engine.docker("--config", folder, "pull", reference)
    docker_engine.docker("rmi", reference)
    with running_front(docker_registry) as front:
        front.status, front.count = 429, None
        other = reference.replace(docker_registry.address, front.address)
        assert b"toomanyrequests" in docker_engine.run("pull", other).stderr
        assert front.asked > 0


def test_an_engine_of_its_own_leaves_nothing_behind():
    with running_engine() as engine:
        home, number, cgroup = engine.home, engine.number, engine.cgroup
        busy = image(engine, "busy")
        engine.docker("run", "--detach", "--name", "stays", busy, "sh", "-c", "trap exit TERM; sleep 600 & wait")
        engine.docker("network", "create", "stays")
        engine.kill()  # what it had started lives on
        engine.start()
    assert not home.exists()
    assert str(home) not in MOUNTS.read_text(encoding="utf-8")
    assert bridges_of(number) == []
    assert not list(pathlib.Path("/sys/fs/cgroup").glob(f"**/{cgroup}"))
    rules = subprocess.run(["iptables", "--list-rules"], capture_output=True, check=True, text=True).stdout
    assert f"10.{number}.0.0" not in rules


def test_the_shared_engine_ends_after_its_last_user_also_when_that_is_killed(tmp_path):
    script = (
        "import sys, time; from tests.docker.sharing import shared_engine\n"
        "with shared_engine() as engine: print(engine.home, flush=True); time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTEST_XDIST_TESTRUNUID": f"parts{os.getpid()}"}
    users = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    homes = [user.stdout.readline().strip() for user in users]
    assert homes[0] == homes[1]
    home = pathlib.Path(homes[0])
    users[0].kill()
    users[0].wait()
    assert (home / "docker.sock").exists()
    users[1].kill()
    users[1].wait()
    for user in users:
        user.stdout.close()
    wait_until(lambda: not home.exists(), 30, "the end of the shared engine")
    assert not home.with_suffix(".users").exists()
