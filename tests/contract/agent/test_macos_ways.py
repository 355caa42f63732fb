"""Jobs run with the ways of macOS: no /proc, no pidfd, no subreaper, no control groups, processes by `ps` alone.

This is Linux with the file for macOS put in the place of its own; Debian's `ps` prints the same columns.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import zipfile
from collections.abc import Iterator

import pytest

from .channel import eventually, pack
from .conftest import Machine

CHOICE = 'if sys.platform == "darwin":'


@pytest.fixture
def mac(tmp_path: pathlib.Path) -> Iterator[Machine]:
    plain, changed = pack(tmp_path / "plain.pyz"), tmp_path / "mac.pyz"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            text = source.read(name).decode()
            if name.endswith("/system.py"):
                assert CHOICE in text
                text = text.replace(CHOICE, "if True:")
            if name.endswith("/cgroup.py"):
                text = text.replace("/proc/self/mounts", "/nowhere")
            target.writestr(name, text)
    made = Machine(tmp_path, changed)
    yield made
    made.close()


def test_a_job_runs_to_its_end(mac) -> None:
    result, log = mac.run(mac.job("echo one", "echo two"))
    assert result["outcome"] == "success"
    assert log == "one\ntwo\n"


def test_an_abort_ends_what_the_job_started(mac) -> None:
    channel = mac.connect()
    lease = mac.start(channel, mac.job("sleep 300 & echo $!; wait"))
    eventually(lambda: (channel.receive(0.2), channel.log(lease))[1].endswith(b"\n"), "the job runs")
    child = int(channel.log(lease))
    assert channel.ask("abort", lease=lease, epoch=1, reason="enough")["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "aborted"
    eventually(lambda: not _runs(child), "its child has ended")


def test_a_supervisor_that_died_is_told_of_as_lost(mac) -> None:
    channel = mac.connect()
    lease = mac.start(channel, mac.job("echo ready; sleep 300"))
    eventually(lambda: (channel.receive(0.2), channel.log(lease))[1] == b"ready\n", "the job runs")
    state = json.loads((mac.folder / "jobs" / lease / "state.json").read_text())
    os.kill(state["pid"], signal.SIGKILL)
    leases = channel.ask("ping")["leases"]
    assert [each["state"] for each in leases] == ["lost"]
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]


def test_cleaning_leaves_nothing_but_a_tombstone(mac) -> None:
    channel = mac.connect()
    lease = mac.start(channel, mac.job("echo done"))
    assert channel.exit_of(lease)["result"]["outcome"] == "success"
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert not (mac.folder / "jobs" / lease).exists()
    assert (mac.folder / "tombstones" / lease).exists()


def _runs(pid: int) -> bool:
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}
