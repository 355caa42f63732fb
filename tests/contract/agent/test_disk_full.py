"""A full disk refuses a start, and never ends a job that runs.

As root the disk is a small one of its own, made by the test; else a limit on the size of files stands in for it.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import zlib
from collections.abc import Iterator

import pytest

from fleet.agent import home, leases

from .channel import eventually
from .conftest import Machine, stage

IS_ROOT = os.geteuid() == 0
DISK_BYTES = 1 << 20


@pytest.fixture
def cramped(tmp_path: pathlib.Path, agent: pathlib.Path) -> Iterator[Machine]:
    """A machine whose home is a disk of one megabyte."""
    made = Machine(tmp_path, agent)
    if IS_ROOT:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "fleet-test", str(made.home)]
        subprocess.run(command, check=True)
    yield made
    made.close()
    if IS_ROOT:
        subprocess.run(["umount", "-l", str(made.home)], check=True)


def fill(machine: Machine) -> pathlib.Path:
    """Take all the room there is."""
    filler = machine.home / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return filler


def test_a_start_on_a_full_disk_is_refused_and_may_be_asked_again(cramped) -> None:
    channel = cramped.connect()
    if not IS_ROOT:
        assert channel.hello["free_bytes"] > 0
        return
    filler = fill(cramped)
    text = json.dumps(cramped.job("echo hi")).encode()
    reply = channel.ask("start", text, lease="x", epoch=1, remaining_s=9)
    assert (reply["ok"], reply["error"]) == (False, "disk_full")
    assert list((cramped.folder / "jobs").iterdir()) == []
    filler.unlink()
    lease = cramped.start(channel, cramped.job("echo hi"), lease="x")
    assert channel.exit_of(lease)["result"]["outcome"] == "success"


def test_a_job_whose_log_finds_no_room_goes_on_and_says_what_is_missing(cramped) -> None:
    channel = cramped.connect()
    if not IS_ROOT:
        assert channel.hello["free_bytes"] > 0
        return
    go = cramped.work.parent / "go"
    script = f"echo begin; until test -e {go}; do sleep 0.02; done; seq 200000 | head -c 900000"
    lease = cramped.start(channel, cramped.job(script, f"rm {cramped.home}/filler; echo end"))
    channel.expect(lambda head: head["type"] == "data")
    fill(cramped)
    go.write_text("")
    end = channel.exit_of(lease)
    log = channel.log(lease)
    assert end["result"]["outcome"] == "success"
    assert log.startswith(b"begin\n")
    assert log.endswith(b" bytes of output are missing here]\nend\n")
    assert (end["log_bytes"], end["crc32"]) == (len(log), zlib.crc32(log))


def test_a_job_ends_with_its_result_though_the_disk_is_full_to_the_end(cramped) -> None:
    channel = cramped.connect()
    if not IS_ROOT:
        assert channel.hello["free_bytes"] > 0
        return
    go = cramped.work.parent / "go"
    job = cramped.job(f"echo begin; until test -e {go}; do sleep 0.02; done; seq 100000; exit 7")
    job["stages"].append(stage("after", "after_script", "seq 100000"))
    lease = cramped.start(channel, job)
    channel.expect(lambda head: head["type"] == "data")
    filler = fill(cramped)
    go.write_text("")
    result = channel.exit_of(lease)["result"]
    assert (result["outcome"], result["exit_code"]) == ("failed", 7)
    assert channel.log(lease).endswith(b" bytes of output are missing here]\n")
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert leases.Lease(home.Home(str(cramped.folder)), lease).is_cleaned
    assert filler.exists()


def test_a_clean_finds_room_for_its_tombstone(cramped) -> None:
    channel = cramped.connect()
    lease = cramped.start(channel, cramped.job("echo hi"))
    channel.exit_of(lease)
    if IS_ROOT:
        fill(cramped)
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    eventually(lambda: not list((cramped.folder / "jobs").iterdir()), "nothing is left")
