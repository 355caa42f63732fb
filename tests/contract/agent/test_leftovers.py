"""Nothing that a job started outlives it, whatever it did to hide."""

from __future__ import annotations

import os
import pathlib

import pytest

from fleet.agent import cgroup, home, leases, system

from .channel import eventually
from .conftest import stage

HIDING = {
    "in the background": "sleep 400 &",
    "in a session of its own": "setsid -f sleep 400",
    "without its environment": "setsid -f env -i sleep 400",
    "after two forks": "( ( setsid env -i sleep 400 & ) & )",
    "ignoring signals": "setsid -f bash -c \"trap '' TERM HUP INT; while :; do sleep 0.1; done\"",
    "as an orphan of an orphan": "setsid -f bash -c 'setsid -f bash -c \"sleep 400; :\"; sleep 400'",
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING.keys())
def test_a_process_that_a_step_left_is_gone_when_the_job_is(machine, hide: str) -> None:
    pids = machine.home / "pids"
    script = f"{hide}\nfor n in $(seq 5); do sleep 0.05; done\nps -eo pid,ppid > {pids}\n"
    channel = machine.connect()
    lease = machine.start(channel, machine.job(script))
    pid = leases.Lease(home.Home(str(machine.folder)), lease).view().pid
    channel.exit_of(lease)
    parents = dict(map(int, line.split()) for line in pids.read_text().splitlines()[1:])
    below = {child for child in parents if is_below(child, pid, parents)}
    assert len(below) >= 2
    eventually(lambda: not [one for one in below if system.start_time(one)], "all of them are gone")


def is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == root:
            return True
    return False


def test_a_daemon_lives_on_from_step_to_step_and_may_go_on_printing(machine) -> None:
    # setsid forks before it leaves the group that the step's end ends: the step waits until it has
    waits = "until test -e go; do sleep 0.02; done; echo from the daemon; touch done; sleep 400"
    daemon = f"setsid -f bash -c 'touch up; {waits}'; until test -e up; do sleep 0.02; done"
    job = machine.job(daemon, "touch go; until test -e done; do sleep 0.02; done")
    result, log = machine.run(job)
    assert (result["outcome"], log) == ("success", "from the daemon\n")


def test_a_process_left_in_the_group_of_a_stage_ends_with_the_stage(machine) -> None:
    job = machine.job("sleep 400 & echo $! >pid", "kill -0 $(cat pid) 2>/dev/null && echo alive || echo gone")
    assert machine.run(job)[1] == "gone\n"


def test_a_stage_ends_when_its_shell_does_though_a_daemon_prints_for_ever(machine) -> None:
    result, _ = machine.run(machine.job("setsid -f yes", "true"))
    assert result["outcome"] == "success"


def test_cleanup_runs_after_what_was_left_has_been_ended(machine) -> None:
    count = "ps -eo args | grep -c '^sleep 40077'; true"
    job = machine.job(f"setsid -f sleep 40077; until test $({count}) = 1; do sleep 0.02; done; {count}")
    job["stages"].append(stage("cleanup", "cleanup", count))
    assert machine.run(job)[1] == "1\n0\n"


def test_a_control_group_holds_the_job_where_there_can_be_one(machine) -> None:
    """As root with a mounted hierarchy the job is in its own group, which is gone with it; else the walk suffices."""
    group = cgroup.JobGroup(f"probe-{os.getpid()}", is_root=os.geteuid() == 0)
    group.make()
    channel = machine.connect()
    lease = machine.start(channel, machine.job("cat /proc/self/cgroup"))
    channel.exit_of(lease)
    seen = channel.log(lease).decode()
    assert (f"/fleet/{lease}" in seen) is (group.path is not None)
    if group.path is not None:
        assert group.remove(5)
        assert not pathlib.Path(group.path).with_name(lease).exists()
