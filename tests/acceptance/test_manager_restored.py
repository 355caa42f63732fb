"""A database that was brought back from yesterday's backup has forgotten machines: none of them is deleted unasked."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until


def started(manager) -> None:
    count = len(manager.events("manager_started")) if manager.starts else 0
    manager.start()
    wait_until(lambda: len(manager.events("manager_started")) > count, 60, "the start")


def backup(manager) -> None:
    file = manager.state / "fleet.sqlite"
    with (
        contextlib.closing(sqlite3.connect(file)) as store,
        contextlib.closing(sqlite3.connect(f"{file}.backup")) as to,
    ):
        store.backup(to)


def restore(manager) -> None:
    file = manager.state / "fleet.sqlite"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{file}{suffix}")
    shutil.copy(f"{file}.backup", file)


def fleetctl(manager, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet.cli.main", *arguments, "--config", str(manager.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_restored_database_deletes_no_machine_until_a_person_says_so(gitlab, make_manager):
    manager = make_manager(idle=0, idle_time="1s", machines=3, pool_keys='update_interval = "1s"')
    started(manager)
    backup(manager)
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 300"]))
    gitlab.wait_for_trace(job, "begun", timeout=40)
    (machine,) = manager.machines()
    wait_until((manager.state / "store.mark").exists, 20, "the mark")
    noted = (manager.state / "store.mark").read_text()
    wait_until(lambda: (manager.state / "store.mark").read_text() != noted, 20, "the next mark")
    manager.kill()
    restore(manager)
    started(manager)
    (told,) = manager.events("database_restored")
    assert "restored from a backup" in told["reason"]
    assert told["until"] == "fleetctl store sweep on"
    wait_until(lambda: manager.events("machine_reported"), 40, "the report of the machine that no row knows")
    other = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(other, timeout=40)
    assert view.state == "success", "the work goes on"
    assert machine in manager.machines(), "a job may be running on it"
    manager.stop(signal.SIGTERM, timeout=20)
    started(manager)  # a restart is no consent
    wait_until(lambda: len(manager.events("machine_reported")) >= 2, 40, "the next report")
    assert machine in manager.machines()
    done = fleetctl(manager, "store", "sweep", "on")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: machine not in manager.machines(), 60, "the end of the orphan")
    gitlab.drop(job)


def test_an_ordinary_restart_is_not_taken_for_a_restored_database(gitlab, make_manager):
    manager = make_manager()
    started(manager)
    job = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(job, timeout=40)
    wait_until((manager.state / "store.mark").exists, 20, "the mark")
    for how in (signal.SIGTERM, signal.SIGKILL):
        manager.stop(how, timeout=20)
        gitlab.manager_restarted()
        started(manager)
    assert manager.events("database_restored") == []
    assert manager.rows("SELECT sweeping FROM stores") == [{"sweeping": 1}]
