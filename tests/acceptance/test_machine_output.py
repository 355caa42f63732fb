"""Much output in one line: the manager's memory stays flat, and output_limit cuts where it says."""

from __future__ import annotations

import pathlib
import re

from fleet.demo.payload import make_job
from tests.acceptance.reasons import started
from tests.acceptance.standing import settled

MIB = 1024 * 1024


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held so far."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    [kib] = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kib) * 1024


def one_line(mib: int) -> list[str]:
    return [f"head -c {mib * MIB} /dev/zero | tr '\\0' x", "echo", "echo after"]


def test_a_line_of_500_megabytes_is_cut_at_the_limit_and_costs_no_memory(gitlab, make_manager):
    manager = started(make_manager(runner_keys="output_limit = 1024"))
    gitlab.wait_for(gitlab.enqueue(make_job(script=["true"])), timeout=60)
    before = peak_bytes(manager.pid)
    job = gitlab.enqueue(make_job(script=one_line(500)))
    (view,) = gitlab.wait_for(job, timeout=120)
    assert view.state == "success"
    trace = gitlab.trace(job)
    assert MIB - 65536 < len(trace) < MIB + 65536
    assert b"1024" in trace[-2000:] or b"limit" in trace[-2000:]
    assert b"after" not in trace.split(b"xxxx")[-1], "what comes after the limit is not shown"
    assert peak_bytes(manager.pid) - before < 40 * MIB
    settled(gitlab, manager)


def test_a_line_of_64_megabytes_is_carried_whole_and_costs_no_memory(gitlab, make_manager):
    manager = started(make_manager(runner_keys="output_limit = 200000"))
    gitlab.wait_for(gitlab.enqueue(make_job(script=["true"])), timeout=60)
    before = peak_bytes(manager.pid)
    job = gitlab.enqueue(make_job(script=one_line(64)))
    (view,) = gitlab.wait_for(job, timeout=120)
    assert view.state == "success"
    trace = gitlab.trace(job)
    assert trace.count(b"x") >= 64 * MIB
    assert b"after" in trace[-3000:]
    assert peak_bytes(manager.pid) - before < 40 * MIB
    settled(gitlab, manager)
