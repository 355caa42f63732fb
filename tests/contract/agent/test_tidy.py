"""On a disk that fills, what was used least lately goes first, and nothing that a running job holds."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.agent import tidy, uses
from fleet.agent.home import Home

from .channel import eventually
from .conftest import Machine, stage

MIB = 1 << 20
LOW, HIGH = {"bytes": 8 * MIB}, {"bytes": 10 * MIB}


@pytest.fixture
def small(tmp_path: pathlib.Path, agent: pathlib.Path) -> Iterator[Machine]:
    """A machine whose jobs work on a disk of 24 MiB."""
    made = Machine(tmp_path, agent)
    made.work.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "fleet-test", str(made.work)]
    subprocess.run(command, check=True)
    yield made
    made.close()
    subprocess.run(["umount", "-l", str(made.work)], check=True)


def project(machine: Machine, name: str) -> str:
    return str(machine.work / "builds" / "token" / "0" / "group" / name)


def job_in(machine: Machine, path: str, script: str, **fields: Any) -> dict[str, Any]:
    """A job that keeps its project directory, as the manager writes it."""
    script = f"mkdir -p {path} && cd {path} && {script}"
    return machine.job(script, keeps=[{"path": path, "root": str(machine.work / "builds")}], **fields)


def fill(machine: Machine, path: str, mebibytes: int) -> None:
    """Run a job that leaves so much in its directory."""
    script = f"mkdir -p .git && head -c {mebibytes}M /dev/zero >data"
    result, log = machine.run(job_in(machine, path, script))
    assert result["outcome"] == "success", log


def tidied(machine: Machine, on: Any = None, **fields: Any) -> dict[str, Any]:
    on = on or machine.connect()
    asked = {"low": LOW, "high": HIGH, "timeout_s": 60, "prune_images": True, **fields}
    reply = on.ask("tidy", **asked)
    assert reply["ok"], reply
    return reply


def test_with_room_enough_nothing_is_removed(small) -> None:
    fill(small, project(small, "one"), 4)
    reply = tidied(small)
    assert reply["removed"] == {}
    assert pathlib.Path(project(small, "one"), "data").exists()


def test_what_was_used_least_lately_goes_first_and_no_more_than_is_needed(small) -> None:
    for name in ("one", "two", "three"):
        fill(small, project(small, name), 6)
    fill(small, project(small, "one"), 6)  # used again: now `two` is the oldest
    reply = tidied(small)
    assert reply["removed"] == {"build": 1}
    assert reply["freed_bytes"]["build"] >= 6 * MIB
    assert not pathlib.Path(project(small, "two")).exists()
    assert pathlib.Path(project(small, "one"), "data").exists()
    assert pathlib.Path(project(small, "three"), "data").exists()
    (disk,) = [each for each in reply["disks"] if each["path"].startswith(str(small.work))]
    assert disk["free_bytes"] >= 10 * MIB
    left = {each.name for _, each in uses.known(Home(str(small.folder)))}
    assert left == {project(small, "one"), project(small, "three")}


def test_the_directory_of_a_running_job_stays_however_old_it_is(small) -> None:
    path, channel = project(small, "busy"), small.connect()
    fill(small, project(small, "other"), 4)
    script = "head -c 16M /dev/zero >data; echo ready; while [ ! -e go ]; do sleep 0.02; done; ls data"
    lease = small.start(channel, job_in(small, path, script))
    eventually(lambda: (channel.receive(0.2), b"ready" in channel.log(lease))[1], "the job has filled the disk")
    home = Home(str(small.folder))
    for _, thing in uses.known(home):
        os.utime(os.path.join(home.uses, thing.key), (1, 1))
    reply = tidied(small, channel)
    assert reply["removed"] == {"build": 1}
    assert not pathlib.Path(project(small, "other")).exists()
    pathlib.Path(path, "go").touch()
    assert channel.exit_of(lease)["result"]["outcome"] == "success"
    os.utime(os.path.join(home.uses, uses.Thing(uses.BUILD, path).key), (1, 1))
    more = {"low": HIGH, "high": {"percent": 90}}
    assert tidied(small, channel, **more)["removed"] == {"build": 1}  # once the job is over, it may go


def test_a_job_that_starts_while_its_directory_is_taken_waits_and_begins_anew(small) -> None:
    path, channel, home = project(small, "one"), small.connect(), Home(str(small.folder))
    fill(small, path, 1)
    lock = uses.alone(home, uses.Thing(uses.BUILD, path))
    assert lock is not None
    lease = small.start(channel, job_in(small, path, "ls -A; echo begun"))
    channel.receive(0.3)
    assert b"begun" not in channel.log(lease)
    tidy.set_aside(uses.Thing(uses.BUILD, path))
    os.close(lock)
    assert channel.exit_of(lease)["result"]["outcome"] == "success"
    assert channel.log(lease) == b"begun\n"  # neither `.git` nor `data` was found


def test_a_job_that_waits_for_its_directory_can_be_stopped(small) -> None:
    path, channel, home = project(small, "one"), small.connect(), Home(str(small.folder))
    fill(small, path, 1)
    lock = uses.alone(home, uses.Thing(uses.BUILD, path))
    lease = small.start(channel, job_in(small, path, "echo begun"))
    assert channel.ask("abort", lease=lease, epoch=1, reason="enough")["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "aborted"
    assert lock is not None
    os.close(lock)


def test_jobs_and_tidying_at_once_lose_no_directory(small) -> None:
    """Each job writes, waits a little and reads back; the tidier wants more room than there will ever be."""
    channel, other = small.connect(), small.connect()
    script = "date >mark; sleep 0.05; cat mark >/dev/null"
    for turn in range(12):
        leases = [small.start(channel, job_in(small, project(small, f"p{n}"), script)) for n in range(2)]
        tidied(small, other, low={"percent": 100}, high={"percent": 100})
        for lease in leases:
            assert channel.exit_of(lease)["result"]["outcome"] == "success", (turn, channel.log(lease))


def test_what_a_killed_tidying_left_is_removed_by_the_next(small) -> None:
    path, home = project(small, "one"), Home(str(small.folder))
    fill(small, path, 4)
    thing = uses.Thing(uses.BUILD, path)
    tidy.set_aside(thing)
    assert pathlib.Path(path + tidy.GONE, "data").exists()
    assert tidied(small)["removed"] == {}
    assert not pathlib.Path(path + tidy.GONE).exists()
    assert uses.known(home)


def test_a_working_copy_without_a_record_is_older_than_all_others(small) -> None:
    for name in ("one", "two", "three"):
        fill(small, project(small, name), 6)
    home = Home(str(small.folder))
    uses.forget(home, uses.Thing(uses.BUILD, project(small, "three")))
    assert tidied(small)["removed"] == {"build": 1}
    assert not pathlib.Path(project(small, "three")).exists()
    assert pathlib.Path(project(small, "one")).exists()


def test_local_cache_archives_stand_in_the_same_queue(small) -> None:
    archive = small.work / "cache" / "group" / "key" / "cache.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(bytes(8 * MIB))
    transfer = {"do": "nothing", "items": [{"keys": [{"local": str(archive)}]}]}
    described = stage("restore_cache", "restore_cache", "") | {"transfer": transfer}
    things = uses.things_of({"stages": [described], "user": None})
    holds = uses.Holds(Home(str(small.folder)))
    small.connect()
    assert all(holds.take(thing) for thing in things)
    uses.watch_disk(Home(str(small.folder)), str(archive.parent))
    holds.close()
    fill(small, project(small, "one"), 12)
    assert tidied(small)["removed"] == {"cache": 1}
    assert not archive.exists()


def test_as_root_a_directory_is_removed_in_the_name_of_the_user_whose_it_is(tmp_path) -> None:
    """What the user may not remove stays, wherever a link of the user's making leads."""
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o700)
    (kept / "project").mkdir()
    tmp_path.chmod(0o711)
    problem = tidy.as_user("nobody", lambda: tidy.set_aside(uses.Thing(uses.BUILD, str(kept / "project"), "nobody")))
    assert "denied" in problem
    assert (kept / "project").is_dir()


def test_the_free_room_of_the_disks_that_jobs_fill_is_told(small) -> None:
    fill(small, project(small, "one"), 8)
    (told,) = [each for each in small.connect().hello["disks"] if each["path"].startswith(str(small.work))]
    assert told["size_bytes"] == 24 * MIB
    assert 14 * MIB < told["free_bytes"] <= 16 * MIB


def test_two_tidyings_at_once_are_one(small) -> None:
    channel = small.connect()
    number = os.open(Home(str(small.folder)).uses, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    reply = channel.ask("tidy", low=LOW, high=HIGH, timeout_s=60)
    os.close(number)
    assert (reply["ok"], reply["error"]) == (False, "failed")
    assert "already" in reply["message"]


def test_a_supervisor_that_is_killed_holds_nothing(small) -> None:
    path, channel = project(small, "one"), small.connect()
    lease = small.start(channel, job_in(small, path, "head -c 20M /dev/zero >data; echo ready; sleep 60"))
    eventually(lambda: (channel.receive(0.2), b"ready" in channel.log(lease))[1], "the job runs")
    state = json.loads((small.folder / "jobs" / lease / "state.json").read_text())
    os.kill(state["pid"], signal.SIGKILL)
    assert channel.exit_of(lease)["result"]["outcome"] == "lost"
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert tidied(small, channel)["removed"] == {"build": 1}
