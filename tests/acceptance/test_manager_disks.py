"""A disk of the manager fills up: intake stops, running jobs go on, nothing is lost, and all resumes by itself.

Each disk is a small one of its own, mounted for the test.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.test_signals import counted, counting, lines

MIB = 1024 * 1024


class Disk:
    """A small disk that can be filled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.filler = path / "filler"

    def fill(self, *, leave: int = 0) -> None:
        """Take all room but `leave` bytes."""
        room = os.statvfs(self.path)
        want = room.f_bavail * room.f_frsize - leave
        with self.filler.open("ab") as file, contextlib.suppress(OSError):
            while want > 0:
                want -= file.write(bytes(min(want, MIB)))
                file.flush()

    def free(self) -> None:
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", path], check=True)
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True)


def ready(manager) -> tuple[int, str]:
    url = (manager.state / "api.address").read_text().strip()
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def is_ready(manager) -> bool:
    return ready(manager)[0] == 200


def rows(file: pathlib.Path, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(file, timeout=10)) as store:
        return store.execute(sql).fetchall()


@pytest.mark.parametrize("which", ["spool", "database"])
def test_below_the_reserve_no_job_is_taken_and_running_ones_go_on(gitlab, make_manager, disk, which):
    if which == "spool":
        manager = make_manager(fleet_keys=f'spool_dir = "{disk.path}/spool"')
    else:
        manager = make_manager(database=f"sqlite:///{disk.path}/fleet.db")
    text = manager.config.read_text()
    manager.write(text.replace("reserve_free_bytes = 0", f"reserve_free_bytes = {12 * MIB}"))
    manager.start()
    job = gitlab.enqueue(counting(6))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    assert is_ready(manager)
    disk.fill(leave=8 * MIB)
    wait_until(lambda: not is_ready(manager), 20, "the word that it takes no jobs")
    status, told = ready(manager)
    assert status == 503
    assert "reserve_free_bytes" in told
    assert str(disk.path) in told
    late = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=40)
    assert view.state == "success"
    assert counted(gitlab, job) == lines(6)
    assert gitlab.job(late).state == "pending"
    assert len(manager.events("disk_low")) == 1
    disk.free()
    (view,) = gitlab.wait_for(late, timeout=40)
    assert view.state == "success"
    wait_until(lambda: is_ready(manager), 20, "the word that it takes jobs again")
    assert len(manager.events("disk_has_room_again")) == 1


def talking(count: int) -> dict:
    """A job that prints two kilobytes each tenth of a second."""
    script = f"for i in $(seq 1 {count}); do echo line $i $PADDING; sleep 0.1; done"
    return make_job(script=[script], variables={"PADDING": "x" * 2000})


def said(count: int) -> list[str]:
    return [f"line {number} {'x' * 2000}" for number in range(1, count + 1)]


def test_a_full_spool_delays_a_trace_and_changes_no_byte_of_it(gitlab, make_manager, disk):
    manager = make_manager(fleet_keys=f'spool_dir = "{disk.path}/spool"').start()
    job, short = gitlab.enqueue(talking(80)), gitlab.enqueue(talking(20))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    gitlab.wait_for_trace(short, "line 3", timeout=60)
    disk.fill()
    wait_until(lambda: manager.events("spool_stopped"), 30, "a write that found no room")
    late = gitlab.enqueue(make_job(script=["echo late"]))
    stopped = len(manager.events("spool_stopped"))
    wait_until(lambda: len(manager.events("spool_stopped")) > stopped + 4, 60, "some more tries")
    assert len(manager.machines()) == 2, "the machines keep what the spool could not take"
    disk.free()
    views = gitlab.wait_for(job, short, late, timeout=60)
    assert [(view.state, view.attempts) for view in views] == [("success", 1)] * 3
    assert counted(gitlab, job) == said(80)
    assert counted(gitlab, short) == said(20)
    assert "Traceback" not in manager.log()


def test_a_full_database_disk_stops_intake_alone_and_all_resumes(gitlab, make_manager, disk):
    file = disk.path / "fleet.db"
    manager = make_manager(database=f"sqlite:///{file}", idle=1, idle_time="1s", machines=3).start()
    job = gitlab.enqueue(counting(10))
    ends_meanwhile = gitlab.enqueue(counting(3))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    gitlab.wait_for_trace(ends_meanwhile, "line 3", timeout=60)
    disk.fill()
    wait_until(lambda: manager.events("controller_hindered"), 40, "the first write that found no room")
    late = gitlab.enqueue(make_job(script=["true"]))
    wait_until(lambda: "line 60" in counted(gitlab, job), 40, "the trace, which goes on")
    wait_until(lambda: not is_ready(manager), 40, "the word that it takes no jobs")
    machines = manager.machines()
    assert gitlab.job(late).state in ("pending", "assigned"), "nothing is acknowledged that is not kept"
    assert gitlab.job(ends_meanwhile).state == "running", "an end that is not kept is not told"
    disk.free()
    views = gitlab.wait_for(job, ends_meanwhile, late, timeout=90)
    assert [view.state for view in views] == ["success"] * 3
    assert [view.attempts for view in views[:2]] == [1, 1]
    assert counted(gitlab, job) == lines(10)
    assert counted(gitlab, ends_meanwhile) == lines(3)
    assert machines
    wait_until(lambda: is_ready(manager), 30, "the word that it takes jobs again")
    assert "Traceback" not in manager.log()
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]


def test_a_write_ahead_log_that_cannot_grow_is_survived_like_a_full_disk(gitlab, make_manager, disk):
    """Somebody reads the database for long, so that its log cannot be folded back and grows until the disk is full."""
    file = disk.path / "fleet.db"
    manager = make_manager(database=f"sqlite:///{file}").start()
    job = gitlab.enqueue(counting(12))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM journal").fetchall()
        disk.fill(leave=256 * 1024)
        wait_until(lambda: manager.events("controller_hindered"), 60, "the first write that found no room")
        reader.execute("ROLLBACK")
    disk.free()
    late = gitlab.enqueue(make_job(script=["true"]))
    views = gitlab.wait_for(job, late, timeout=90)
    assert [view.state for view in views] == ["success"] * 2
    assert views[0].attempts == 1
    assert counted(gitlab, job) == lines(12)
    assert "Traceback" not in manager.log()
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]


def test_a_manager_that_starts_on_a_full_disk_waits_for_room(gitlab, make_manager, disk):
    manager = make_manager(database=f"sqlite:///{disk.path}/fleet.db")
    disk.fill()
    manager.start()
    told = wait_until(lambda: manager.events("database_unavailable"), 40, "the word that it waits")
    assert "free space" in told[0]["error"]
    disk.free()
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=90)
    assert view.state == "success"
    assert "Traceback" not in manager.log()
