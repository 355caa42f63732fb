"""The agent's container manner with a real engine, as a login user without root rights and as root."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid

import pytest

from tests.contract.agent import channel
from tests.docker.images import image

NOBODY = 65534
PYTHON = "/usr/bin/python3"  # which everybody may run


@pytest.fixture
def place():
    """A home that everybody may reach, with the agent in it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fleet-agent-", dir="/tmp"))
    folder.chmod(0o755)
    channel.pack(folder / "agent.pyz").chmod(0o644)
    (folder / "home").mkdir()
    os.chown(folder / "home", NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def job_of(engine, name, stages, volume="", **section):
    """A job file in the container manner, with one volume for builds."""
    lease = uuid.uuid4().hex
    volume = volume or f"vol-{lease}"
    containers = {
        "program": "docker", "host": engine.host, "labels": {"of": "a-test"}, "network": None,
        "volumes": [{"name": volume, "keep": bool(section.pop("keep", False))}], "mounts": [f"{volume}:/builds"],
        "places": [{"path": "/builds", "volume": volume}], "services": [], "environment": {"FOO": "bar"},
        "image": {"name": name, "image": name, "container": f"b-{lease}", "pull": ["never"], "options": [],
                  "command": ["sh"]},
        "helper": {"image": image(engine, "full"), "container": f"h-{lease}", "pull": ["never"], "options": []},
    }  # fmt: skip
    plain = {"section": False, "where": "helper"}
    return {
        "format": 1, "lease": lease, "job_id": 1, "user": None, "shell": "sh", "cwd": "/builds", "environment": {},
        "directories": [{"path": "/builds/p.tmp", "mode": 0o777}],
        "files": [{"path": "/builds/p.tmp/IT'S $HOME", "mode": 0o666, "text": "it's \"$HOME\"\n"}],
        "timeout_s": 120, "abort_grace_s": 2, "cleanup_paths": ["/builds/p.tmp"],
        "trace": {"limit_bytes": 1 << 20, "limit_notice": "", "timestamps": False, "sections": False},
        "stages": [plain | stage for stage in stages], "containers": containers | section,
    }  # fmt: skip


def supervised(place, job, *, user=None):
    """Run a job in the foreground: (result, log)."""
    who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        [PYTHON, str(place / "agent.pyz"), "supervise", job["lease"]],
        input=json.dumps(job).encode(),
        capture_output=True,
        env={"HOME": str(place / "home"), "PATH": os.environ["PATH"]},
        cwd="/",
        timeout=120,
        check=False,
        **who,
    )
    log = place / "home" / ".fleet-agent" / "jobs" / job["lease"] / "log"
    assert done.stdout, done.stderr.decode()
    return json.loads(done.stdout), log.read_text()


def let_in(engine):
    """What membership in the group `docker` is for a login user."""
    engine.home.chmod(0o711)
    engine.socket.chmod(0o666)


def left_of(engine, job):
    found = engine.found(f"fleet.lease={job['lease']}")
    return found["containers"] + found["networks"] + found["volumes"]


SHOW = 'cat "/builds/p.tmp/IT\'S \\$HOME"; echo $FOO; echo secret >/builds/p/private; chmod 0600 /builds/p/private\n'
MAKE = "mkdir -p /builds/p/d; cd /builds/p; echo secret >d/private; chmod 0600 d/private; ln -s d/private l"
STAGES = [
    {"name": "get_sources", "kind": "get_sources", "script": "id -u; mkdir -p /builds/p; umask; ls /builds/p\n"},
    {"name": "step", "kind": "step", "where": "build", "script": SHOW},
    {"name": "again", "kind": "after_script", "script": "cat /builds/p/private; rm /builds/p/private; echo cleaned\n"},
]  # fmt: skip


@pytest.mark.parametrize("user", [NOBODY, None], ids=["a login user", "root"])
def test_helper_stages_are_roots_whoever_the_agent_is(place, docker_engine, user):
    let_in(docker_engine)
    if user is None:
        os.chown(place / "home", 0, 0)
    job = job_of(docker_engine, image(docker_engine, "busy"), STAGES)
    result, log = supervised(place, job, user=user)
    assert result["outcome"] == "success", log
    assert 'it\'s "$HOME"\nbar\n' in log
    assert "secret\ncleaned" in log
    assert "\n0\n0000\n" in log
    assert left_of(docker_engine, job) == []


def test_a_file_of_root_that_nobody_else_may_read_is_in_the_copy_of_a_login_user(place, docker_engine):
    let_in(docker_engine)
    name = f"keep-{uuid.uuid4().hex}"
    docker_engine.docker("volume", "create", f"vol-{name}")
    docker_engine.docker(
        "create", "--name", name, "-v", f"vol-{name}:/builds", image(docker_engine, "busy"), "sh", "-c", MAKE
    )
    docker_engine.docker("start", "-a", name)
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
from fleet_agent.docker.engine import Engine
from fleet_agent.docker.tree import tree_for
engine = Engine("docker", sys.argv[2], "l")
reading = {"do": "upload_artifacts", "root": "/builds/p", "items": [{"paths": ["/builds/p/d", "l"]}]}
tree = tree_for(engine, sys.argv[3], reading, sys.argv[4] + "/read")
entries = [tree.entry("d/private"), tree.entry("l")]
print([(each.path, each.kind) for each in entries], reading["items"], [f.read(99) for _, f in tree.read(entries[:1])])
tree.close()
writing = {"do": "download_artifacts", "root": "/builds/p", "items": [{"id": 1}]}
tree = tree_for(engine, sys.argv[3], writing, sys.argv[4] + "/write")
with open("/etc/hostname", "rb") as file:
    tree.put_file("new/made", 0o644, 1.0, file, os.path.getsize("/etc/hostname"))
tree.close()
"""
    done = subprocess.run(
        [PYTHON, "-c", script, str(place / "agent.pyz"), docker_engine.host, name, str(place / "home")],
        capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(place / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[('d/private', 'file'), ('l', 'link')] [{'paths': ['d', 'l']}] [b'secret\\n']" in done.stdout
    show = "cat /builds/p/new/made; stat -c '%u %a' /builds/p/new/made /builds/p/new"
    busy = image(docker_engine, "busy")
    shown = docker_engine.docker("run", "--rm", "-v", f"vol-{name}:/builds", busy, "sh", "-c", show)
    assert shown.splitlines() == [pathlib.Path("/etc/hostname").read_text().strip(), "0 644", "0 777"]
    docker_engine.docker("rm", "-f", "-v", name)
    docker_engine.docker("volume", "rm", f"vol-{name}")


def test_a_helper_stage_on_the_machine_reaches_nothing_of_it(place, docker_engine):
    os.chown(place / "home", 0, 0)
    script = f"""
ls {place} 2>&1; ls /var/run/docker.sock 2>&1; cat /etc/shadow 2>&1
touch /usr/bin/made 2>&1; echo x >/proc/sys/kernel/core_pattern; kill -0 {os.getpid()} 2>&1
mount -t tmpfs none /tmp 2>&1; mknod /tmp/disk b 254 0 2>&1; chroot / true 2>&1; ls /proc | grep -c '^[0-9]'
grep CapEff /proc/self/status; true
"""
    stages = [{"name": "get_sources", "kind": "get_sources", "script": script}]
    job = job_of(docker_engine, image(docker_engine, "busy"), stages)
    result, log = supervised(place, job)
    assert result["outcome"] == "success", log
    assert f"cannot access '{place}'" in log
    assert "cannot access '/var/run/docker.sock'" in log
    assert "/etc/shadow: No such file" in log
    assert "/usr/bin/made': Read-only file system" in log
    assert "core_pattern: Read-only file system" in log
    assert "No such process" in log
    assert "permission denied" in log or "must be superuser" in log
    assert "mknod: /tmp/disk: Operation not permitted" in log
    assert "00000000000000fb" in log
