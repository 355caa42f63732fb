"""A lock on a file is held by one process, names it to others, and ends with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fleet.runtime.locks import CannotLock, InUse, Locks

HOLD = """
import pathlib, sys
from fleet.runtime.locks import Locks
locks = Locks()
locks.take(pathlib.Path(sys.argv[1]), "it")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def locks():
    made = Locks()
    yield made
    made.release()


def test_a_second_holder_is_told_who_holds_it(locks, tmp_path):
    locks.take(tmp_path / "made" / "a.lock", "the state directory x")
    other = Locks()
    with pytest.raises(InUse, match=f"the state directory x is in use by another manager .process {os.getpid()}"):
        other.take(tmp_path / "made" / "a.lock", "the state directory x")
    locks.release()
    other.take(tmp_path / "made" / "a.lock", "the state directory x")
    other.release()


def test_a_lock_ends_with_its_process_however_that_ends(locks, tmp_path):
    path = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUse, match=f"process {holder.pid}"):
            locks.take(path, "it")
        holder.kill()
        holder.wait(10)
    locks.take(path, "it")
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_refused_lock_leaves_no_open_file(locks, tmp_path):
    locks.take(tmp_path / "a.lock", "it")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(InUse):
            Locks().take(tmp_path / "a.lock", "it")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_cannot_be_made_is_named(locks, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotLock, match=r"the database y cannot be used: .*file/a\.lock"):
        locks.take(tmp_path / "file" / "a.lock", "the database y")
