"""What the agent does on macOS, as far as Linux can tell: how it reads `ps`, and this machine's processes by it.

None of this runs on macOS in CI; docs/explanation/agent.md says so.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from fleet.agent import system, system_darwin, system_linux

PRINTED = """\
    1     0 Ss   Mon Nov 24 08:01:02 2025
  312     1 Ss   Mon Nov 24 08:01:20 2025
  900   312 S+   Mon Nov 24 09:00:00 2025
  901   900 R    Mon Nov 24 09:00:01 2025
  902   900 Z    Mon Nov 24 09:00:02 2025
  903   902 S    Mon Nov 24 09:00:03 2025
garbage
  904
"""
WITH_ENVIRONMENT = """\
  312 /sbin/launchd
  900 /bin/bash -l PATH=/bin FLEET_LEASE=l-1 HOME=/Users/ci
  901 sleep 60 FLEET_LEASE=l-12
  902 sleep 60 OTHER_FLEET_LEASE=l-1
"""


@pytest.mark.parametrize("own", [system_linux, system_darwin])
def test_each_system_has_the_same_functions(own) -> None:
    for name in system.OWN:
        assert hasattr(own, name), name


def test_processes_are_read_with_their_parents_and_starts() -> None:
    found = {process.pid: process for process in system_darwin.processes_of(PRINTED)}
    assert sorted(found) == [1, 312, 900, 901, 902, 903]
    assert found[901].parent == 900
    assert found[900].started == 1763974800
    assert found[902].is_zombie
    assert not found[901].is_zombie


def test_all_below_a_process_are_found_and_zombies_are_none() -> None:
    found = system_darwin.processes_of(PRINTED)
    assert sorted(system_darwin.below(found, 312)) == [900, 901]
    assert system_darwin.below(found, 901) == []


def test_a_ring_of_numbers_ends_the_walk() -> None:
    ring = system_darwin.processes_of("5 6 S Mon Nov 24 08:01:02 2025\n6 5 S Mon Nov 24 08:01:02 2025\n")
    assert sorted(system_darwin.below(ring, 5)) == [5, 6]


def test_a_lease_is_found_as_a_whole_word_only() -> None:
    assert system_darwin.carrying(WITH_ENVIRONMENT, "FLEET_LEASE", "l-1") == [900]


def test_a_program_that_is_not_there_says_nothing() -> None:
    assert system_darwin.ask(("no-such-program",)) == ""
    assert system_darwin.ask(("false",)) == ""


def test_the_real_ps_of_this_machine_is_understood() -> None:
    """Debian's `ps` prints the same columns."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert select.select([parent.stdout], [], [], 20)[0]
        child = int(parent.stdout.readline())
        try:
            assert {parent.pid, child} <= set(system_darwin.descendants(os.getpid()))
            assert system_darwin.descendants(parent.pid) == [child]
            assert {parent.pid, child} <= set(system_darwin.session_members(parent.pid))
            assert system_darwin.has_children(parent.pid)
            assert not system_darwin.has_children(child)
            assert child in system_darwin.all_processes()
            started = system_darwin.start_time(child)
            assert started > 1_700_000_000
            assert system_darwin.start_time(child) == started
        finally:
            os.kill(child, 9)
            parent.wait(20)
    assert system_darwin.start_time(child) == 0


def test_what_macos_lacks_is_told_to_the_caller() -> None:
    assert system_darwin.adopt_orphans() is False
    assert system_darwin.watch(os.getpid()) is None
