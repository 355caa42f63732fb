"""The manager's own time goes a second a second, whatever the wall clock does."""

from __future__ import annotations

import time
from datetime import timedelta

from fleet.runtime.clock import Clock, monotonic, since_boot


def test_the_managers_time_begins_at_the_wall_clock_and_only_goes_forward():
    clock = Clock()
    assert abs(clock.now() - clock.wall()) < timedelta(seconds=1)
    seen = [clock.now() for _ in range(1000)]
    assert seen == sorted(seen)
    assert seen[0].tzinfo is not None


def test_it_is_never_before_what_the_store_has_seen():
    clock = Clock()
    ahead = clock.wall() + timedelta(hours=2)
    clock.not_before(ahead)
    assert clock.now() >= ahead
    assert clock.drift() < timedelta(hours=-1)
    clock.not_before(ahead - timedelta(hours=1))
    assert clock.now() >= ahead, "and does not go back"


def test_two_clocks_that_never_step_go_along_while_the_host_is_awake():
    before = monotonic(), since_boot()
    time.sleep(0.02)
    after = monotonic(), since_boot()
    assert after[0] - before[0] > 0.01
    assert abs((after[0] - before[0]) - (after[1] - before[1])) < 0.5
