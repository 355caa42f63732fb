"""The rule of update intervals, on the rule itself and on the wire."""

from __future__ import annotations

import concurrent.futures

import pytest

from fleet.demo.pace import BURST_GAP_S, BURST_LENGTH, FULL_CHUNK_BYTES, Pace
from fleet.demo.payload import make_job


@pytest.fixture
def pace() -> Pace:
    return Pace(slack_s=0.25)


def test_updates_at_the_interval_are_no_breach(pace):
    assert [pace.patched(at, 10) for at in (0.0, 3.0, 5.8, 9.0)] == [[]] * 4
    assert pace.ended(12.0) == []


def test_an_early_update_is_certain_once_an_update_on_time_follows(pace):
    pace.patched(0.0, 10)
    assert pace.patched(1.0, 10) == []
    (early,) = pace.patched(4.0, 10)
    assert (early.gap_s, early.interval_s) == (1.0, 3.0)


def test_a_burst_right_before_the_final_update_is_legal(pace):
    for at in (0.0, 3.0, 3.1, 3.2, 3.3):
        assert pace.patched(at, 10) == []
    assert pace.ended(3.4) == []


def test_a_longer_burst_is_a_breach_each(pace):
    pace.patched(0.0, 10)
    found = [pace.patched(0.1 * n, 10) for n in range(1, BURST_LENGTH + 2)]
    assert len(found[-1]) == BURST_LENGTH + 1


def test_a_burst_that_no_final_update_follows_soon_is_a_breach(pace):
    pace.patched(0.0, 10)
    pace.patched(1.0, 10)
    assert len(pace.ended(1.0 + BURST_GAP_S + 0.1)) == 1


def test_a_full_chunk_may_be_followed_at_once(pace):
    for n in range(50):
        assert pace.patched(0.01 * n, FULL_CHUNK_BYTES) == []
    assert pace.patched(1.0, 10) == []
    assert pace.patched(4.0, 10) == []


def test_the_rest_of_a_long_trace_is_part_of_the_burst_before_the_final_update(pace):
    pace.patched(0.0, 10)
    for second in range(1, 9):
        assert pace.patched(0.5 + second, FULL_CHUNK_BYTES) == []
    assert pace.patched(9.6, 10) == []
    assert pace.ended(9.8) == []


def test_the_interval_last_told_counts(pace):
    pace.patched(0.0, 10)
    pace.interval_s = 60.0
    assert pace.patched(30.0, 10) == []
    assert len(pace.patched(90.0, 10)) == 1


def test_who_may_not_know_what_it_sent_last_is_forgiven(pace):
    pace.patched(0.0, 10)
    pace.patched(1.0, 10)
    pace.forgive(1.05)
    assert pace.patched(1.1, 10) == []
    assert pace.patched(4.2, 10) == []


def test_an_update_that_was_held_up_while_its_sender_was_killed_says_nothing_of_the_next_one(pace):
    pace.patched(0.0, 10)
    pace.forgive(3.2)
    assert pace.patched(3.1, 10) == []
    assert pace.patched(3.58, 10) == []
    assert pace.patched(6.7, 10) == []
    assert len(pace.patched(7.0, 10) + pace.patched(10.0, 10)) == 1


def test_on_the_wire_hurrying_updates_are_a_breach(gitlab, job):
    for n in range(BURST_LENGTH + 2):
        assert job.patch(f"line {n}\n".encode()).status_code == 202
    lines = gitlab.violations()
    assert len(lines) == BURST_LENGTH + 1
    assert all(line.startswith(f"too_fast: job {job.id}: PATCH 0.") for line in lines)


def test_on_the_wire_a_restarted_manager_may_go_on_at_once(gitlab, job):
    for n in range(BURST_LENGTH + 4):
        job.patch(f"line {n}\n".encode())
        gitlab.manager_restarted()
    job.finish()
    assert gitlab.violations() == []


def test_many_jobs_at_once_are_told_apart(gitlab, runner):
    for _ in range(40):
        gitlab.enqueue(make_job())
    jobs = [runner.take_and_acknowledge() for _ in range(40)]

    def tell(job):
        job.patch(f"I am {job.id}\n".encode())
        return job.finish().status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(tell, jobs)) == {200}
    assert [gitlab.trace(job.id) for job in jobs] == [f"I am {job.id}\n".encode() for job in jobs]
    assert gitlab.violations() == []
