"""The executors that run scripts in a shell: `instance` on a pool, `shell` on this host, `ssh` on a given one."""

from __future__ import annotations

import contextlib
import getpass
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

import pytest

from fleet.demo.payload import make_job
from fleet.machine.keys import make_key_pair
from tests.acceptance.manager import wait_until
from tests.acceptance.standing import ended_of, settled
from tests.contract.machine.openssh import OpenSsh

IS_ROOT = os.geteuid() == 0
WHO = ('echo "user $(id -un)"', 'echo "in $PWD"', "echo executor done")


def run(gitlab, manager, *script, timeout=60, **payload):
    job = gitlab.enqueue(make_job(script=script, **payload))
    (view,) = gitlab.wait_for(job, timeout=timeout)
    settled(gitlab, manager)
    return ended_of(gitlab, view)


@pytest.fixture
def open_folder():
    """A folder that every user of this host may enter."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def job_user():
    """A user for jobs; without root there is none but our own."""
    if not IS_ROOT:
        yield None
        return
    name = f"fleetjob{os.getpid() % 100000}"
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", "-r", name], check=True, capture_output=True)


def host_runner(make_manager, builds, *, user=None, fleet_keys=""):
    keys = f'builds_dir = "{builds}"\n' + (f'user = "{user}"\n' if user else "")
    return make_manager(executor="shell", pool="", runner_keys=keys, fleet_keys=fleet_keys)


def test_instance_runs_on_a_machine_of_the_pool(gitlab, make_manager):
    manager = make_manager().start()
    ended = run(gitlab, manager, *WHO)
    assert ended.end == ("success", "", 0)
    assert ended.has('Preparing the "instance" executor')
    (machine,) = manager.machines()
    assert ended.has(f"in {machine}")


# --- shell: this host ---


@pytest.mark.parametrize("user", [None, pwd.getpwuid(os.geteuid()).pw_name, "root"], ids=["unset", "ours", "root"])
def test_shell_runs_no_job_as_one_who_can_read_the_managers_secrets(gitlab, make_manager, tmp_path, user):
    manager = host_runner(make_manager, tmp_path / "builds", user=user).start()
    ended = run(gitlab, manager, "echo never")
    assert ended.end == ("failed", "runner_configuration_error", 0)
    assert "never" not in ended.lines
    assert ended.has(f"would run as '{user or getpass.getuser()}', who can read the manager's secrets")
    assert ended.has("allow_same_user = true")
    if user is None:  # said at the start, too, before any job
        assert "set allow_same_user = true" in manager.log()


def test_shell_runs_jobs_as_ourselves_when_a_person_allowed_it(gitlab, make_manager, tmp_path):
    manager = host_runner(make_manager, tmp_path / "builds", fleet_keys="allow_same_user = true").start()
    ended = run(gitlab, manager, *WHO)
    assert ended.end == ("success", "", 0)
    assert f"user {getpass.getuser()}" in ended.lines
    assert ended.has('Preparing the "shell" executor')
    assert ended.has(f"in {tmp_path / 'builds'}")


def test_shell_runs_jobs_as_another_user(gitlab, make_manager, open_folder, job_user):
    if job_user is None:
        manager = host_runner(make_manager, open_folder, user="nobody").start()
        ended = run(gitlab, manager, "echo never")
        assert ended.end == ("failed", "runner_configuration_error", 0)
        assert ended.has("without root")
        return
    builds = open_folder / "builds"
    builds.mkdir()
    os.chown(builds, job_user.pw_uid, job_user.pw_gid)
    manager = host_runner(make_manager, builds, user=job_user.pw_name).start()
    ended = run(
        gitlab,
        manager,
        *WHO,
        f"cat {manager.state}/secret.key && echo leaked || echo kept",
        f"ls {manager.state} && echo leaked || echo kept",
        'cat "$FILED"',
        variables=[{"key": "FILED", "value": "filed\n", "file": True}],
    )
    assert ended.end == ("success", "", 0)
    assert {f"user {job_user.pw_name}", "kept", "filed"} <= set(ended.lines)
    assert "leaked" not in ended.lines


def test_shell_runs_several_jobs_at_once_in_directories_of_their_own(gitlab, make_manager, tmp_path):
    manager = host_runner(make_manager, tmp_path / "builds", fleet_keys="allow_same_user = true").start()
    jobs = [gitlab.enqueue(make_job(script=["echo in $PWD", "sleep 2"])) for _ in range(3)]
    views = gitlab.wait_for(*jobs, timeout=60)
    settled(gitlab, manager)
    places = [line for view in views for line in ended_of(gitlab, view).lines if line.startswith("in ")]
    assert {view.state for view in views} == {"success"}
    assert len(set(places)) == 3


def test_a_restart_of_the_manager_kills_no_job_on_this_host(gitlab, make_manager, tmp_path):
    manager = host_runner(make_manager, tmp_path / "builds", fleet_keys="allow_same_user = true").start()
    job = gitlab.enqueue(make_job(script=["for i in $(seq 1 30); do echo line $i; sleep 0.2; done"]))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    assert manager.stop(signal.SIGTERM) == 0
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    lines = [line for line in ended_of(gitlab, view).lines if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1, 31)]
    settled(gitlab, manager)


def test_a_host_is_never_deleted(gitlab, make_manager, tmp_path):
    manager = host_runner(make_manager, tmp_path / "builds", fleet_keys="allow_same_user = true").start()
    run(gitlab, manager, "true")
    assert manager.rows("SELECT state FROM instances") == [{"state": "ready"}]
    assert manager.stop(signal.SIGQUIT, timeout=60) == 0


# --- ssh: a given host ---


@contextlib.contextmanager
def given_host(tmp_path, known):
    """A real sshd, with the files that a `[runners.ssh]` names; `known` is the host key that we were told."""
    with OpenSsh(tmp_path / "sshd") as sshd:
        key = tmp_path / "id"
        key.write_text(sshd.client.private)
        key.chmod(0o600)
        hosts = tmp_path / "known_hosts"
        hosts.write_text(f"[127.0.0.1]:{sshd.port} {known or sshd.host_key.public}\n")
        table = f"""
  [runners.ssh]
  host = "127.0.0.1"
  port = {sshd.port}
  user = "{getpass.getuser()}"
  identity_file = "{key}"
  known_hosts_file = "{hosts}"
"""
        yield sshd, table, hosts


def test_ssh_runs_on_a_given_host(gitlab, make_manager, tmp_path):
    with given_host(tmp_path, None) as (sshd, table, _):
        manager = make_manager(executor="ssh", pool=table, runner_keys=f'builds_dir = "{tmp_path}/builds"').start()
        ended = run(gitlab, manager, *WHO)
        assert ended.end == ("success", "", 0)
        assert ended.has('Preparing the "ssh" executor')
        assert f"user {getpass.getuser()}" in ended.lines
        assert ended.has(f"in {tmp_path}/builds")
        again = run(gitlab, manager, "exit 3")
        assert again.end == ("failed", "script_failure", 3)
        # one connection for all jobs, and the host stays
        assert sshd.hits(["Accepted publickey"]) <= 2
        assert manager.rows("SELECT state FROM instances") == [{"state": "ready"}]
        manager.stop()


def test_ssh_refuses_a_wrong_host_key_and_says_so(gitlab, make_manager, tmp_path):
    with given_host(tmp_path, make_key_pair().public) as (sshd, table, hosts):
        manager = make_manager(executor="ssh", pool=table, runner_keys=f'builds_dir = "{tmp_path}/builds"').start()
        wait_until(lambda: "host key" in manager.log(), 60, "the refusal")
        job = gitlab.enqueue(make_job(script=["echo fine"]))
        assert sshd.hits(["Accepted publickey"]) == 0
        assert manager.rows("SELECT 1 FROM instances WHERE state = 'ready'") == []
        assert gitlab.job(job).state in ("pending", "assigned", "running")
        # once the right key is known, the host is used
        hosts.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key.public}\n")
        manager.send(signal.SIGHUP)
        (view,) = gitlab.wait_for(job, timeout=90)
        assert view.state == "success"
        settled(gitlab, manager)
        manager.stop()
