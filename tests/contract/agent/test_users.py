"""Run by root, the agent runs a job as the job's user, who can reach nothing of the agent or of other jobs.

Where the tests do not run as root, what can be told without root is tested: that the agent refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from fleet.agent import home as agent_home
from fleet.agent import leases, system

from .channel import Channel, pack
from .conftest import Machine

NAME = f"fleetci{os.getpid() % 100000}"
IS_ROOT = os.geteuid() == 0


@contextlib.contextmanager
def user() -> Iterator[pwd.struct_passwd]:
    """A real user with a home and a group more."""
    group = NAME + "g"
    subprocess.run(["groupadd", group], check=True)
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", "-G", group, NAME], check=True)
    try:
        yield pwd.getpwnam(NAME)
    finally:
        subprocess.run(["userdel", "-r", NAME], check=True, capture_output=True)
        subprocess.run(["groupdel", group], check=False, capture_output=True)


@pytest.fixture
def ci() -> Iterator[pwd.struct_passwd]:
    """The job's user; without root the user that runs the tests."""
    if not IS_ROOT:
        yield pwd.getpwuid(os.geteuid())
        return
    with user() as made:
        yield made


@pytest.fixture
def place(ci) -> Iterator[pathlib.Path]:
    """A folder that the job's user may enter."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shared(place) -> Iterator[Machine]:
    """A machine whose agent's home is in a folder that others may enter."""
    made = Machine(place, pack(place / "agent.pyz"))
    made.home.chmod(0o755)
    yield made
    made.close()


def job(machine: Machine, ci, script: str, **fields):
    return machine.job(script, user=ci.pw_name, **{"cwd": ci.pw_dir, **fields})


def test_a_job_is_its_user_in_every_way(shared, ci) -> None:
    _, log = shared.run(job(shared, ci, "id -u; id -g; id -Gn; echo $HOME $USER $LOGNAME $SHELL; umask; pwd"))
    uid, gid, groups, environment, umask, folder = log.splitlines()
    assert (int(uid), int(gid)) == (ci.pw_uid, ci.pw_gid)
    assert len(groups.split()) >= (2 if IS_ROOT else 1)
    assert environment.split()[1:3] == [ci.pw_name, ci.pw_name]
    assert umask == "0022"
    assert folder == ci.pw_dir


def test_a_job_cannot_read_the_agent_s_folder_nor_its_supervisor(shared, ci) -> None:
    agent = shared.folder
    _, log = shared.run(job(shared, ci, f"ls {agent}; cat /proc/$PPID/environ; ls /proc/$PPID/fd; true"))
    assert stat.S_IMODE(agent.stat().st_mode) == 0o700
    if IS_ROOT:
        assert log.count("ermission denied") == 3
        assert "jobs" not in log


def test_a_job_may_open_its_streams_by_name(shared, ci) -> None:
    script = "echo out >/dev/stdout; echo err >/dev/stderr; head -c 4 /dev/stdin >/dev/null && echo in"
    for stamps in (True, False):
        one = job(shared, ci, script)
        one["trace"]["timestamps"] = stamps
        _, log = shared.run(one)
        assert all(word in log for word in ("out", "err", "in"))
        assert "denied" not in log


def test_files_and_folders_are_made_by_the_user_and_for_the_user(shared, ci) -> None:
    home = pathlib.Path(ci.pw_dir) if IS_ROOT else shared.home
    one = job(
        shared,
        ci,
        f"stat -c '%U %a' {home}/b {home}/b/tmp/KEY; cat {home}/b/tmp/KEY",
        directories=[{"path": f"{home}/b", "mode": 0o700}],
        files=[{"path": f"{home}/b/tmp/KEY", "mode": 0o600, "text": "value\n"}],
        cleanup_paths=[f"{home}/b"],
    )
    _, log = shared.run(one)
    assert log.splitlines() == [f"{ci.pw_name} 700", f"{ci.pw_name} 600", "value"]
    assert not (home / "b").exists()


def test_root_makes_nothing_below_a_folder_that_others_may_change(shared, ci, place) -> None:
    """The folder is in /tmp, where others could slip in a link; so the user is left to fail by itself."""
    result, _ = shared.run(job(shared, ci, "true", cwd=str(place / "builds" / "a")))
    if IS_ROOT:
        assert result["reason"] == "runner_system_failure"
        assert "builds" in result["message"]
    assert (place / "builds").exists() is not IS_ROOT


def test_root_makes_a_folder_for_the_user_where_only_root_may(shared, ci) -> None:
    if not IS_ROOT:
        assert shared.run(job(shared, ci, "true"))[0]["outcome"] == "success"
        return
    base = pathlib.Path(tempfile.mkdtemp(dir="/opt"))
    base.chmod(0o755)
    try:
        result, log = shared.run(job(shared, ci, "pwd; stat -c %U .", cwd=f"{base}/builds/x"))
        assert result["outcome"] == "success"
        assert log.splitlines() == [f"{base}/builds/x", ci.pw_name]
        assert (base / "builds").owner() == ci.pw_name
    finally:
        shutil.rmtree(base)


def test_a_link_that_a_job_left_leads_root_nowhere(shared, ci) -> None:
    kept = shared.home / "kept"
    kept.mkdir()
    (kept / "file").write_text("old")
    link = pathlib.Path(ci.pw_dir if IS_ROOT else shared.home) / "trap"
    shared.run(job(shared, ci, f"ln -s {kept} {link}"))
    one = job(
        shared,
        ci,
        "true",
        files=[{"path": f"{link}/file", "mode": 0o644, "text": "new"}],
        cleanup_paths=[f"{link}/file"],
    )
    result, _ = shared.run(one)
    if IS_ROOT:
        assert result["reason"] == "runner_system_failure"
        assert (kept / "file").read_text() == "old"
    link.unlink()


def test_a_job_cannot_end_its_supervisor_nor_signal_it(shared, ci) -> None:
    result, log = shared.run(job(shared, ci, "kill -9 $PPID; echo lived"))
    if IS_ROOT:
        assert (result["outcome"], log.splitlines()[-1]) == ("success", "lived")
    else:
        assert result["outcome"] == "lost"


def test_what_a_user_s_job_left_is_ended_and_removed_though_its_supervisor_died(shared, ci) -> None:
    home = pathlib.Path(ci.pw_dir) if IS_ROOT else shared.home
    channel = shared.connect()
    one = job(shared, ci, f"touch {home}/left; setsid -f sleep 77; echo up; sleep 60", cleanup_paths=[f"{home}/left"])
    lease = shared.start(channel, one)
    channel.expect(lambda head: head["type"] == "data")
    os.kill(leases.Lease(agent_home.Home(str(shared.folder)), lease).view().pid, 9)
    channel.exit_of(lease)
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert system.processes_with("FLEET_LEASE", lease) == []
    assert not (home / "left").exists()


def test_without_root_another_user_s_job_is_refused(shared, ci, place) -> None:
    """The agent itself runs as the job's user here, and is asked to run a job as root."""
    home = place / "unprivileged"
    home.mkdir()
    if IS_ROOT:
        os.chown(home, ci.pw_uid, ci.pw_gid)
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable
    channel = Channel(shared.agent, home, python, user=ci.pw_name if IS_ROOT else None)
    try:
        assert channel.hello["root"] is False
        text = json.dumps(shared.job("true", user="root")).encode()
        reply = channel.ask("start", text, lease="x", epoch=1, remaining_s=9)
        assert (reply["ok"], reply["error"]) == (False, "not_root")
        assert channel.ask("rekey", private="x", public="ssh-ed25519 x")["error"] == "not_root"
        own = shared.job("id -un; setsid -f env -i sleep 401; sleep 0.1", cwd=str(home / "work"))
        assert channel.ask("start", json.dumps(own).encode(), lease="y", epoch=1, remaining_s=60)["ok"]
        assert channel.ask("follow", lease="y", epoch=1, offset=0)["ok"]
        assert channel.exit_of("y")["result"]["outcome"] == "success"
        assert channel.log("y").decode().strip() == ci.pw_name
    finally:
        channel.close()
