"""Two managers share a fleet on one PostgreSQL store: either goes on with what the other left, and neither harms it."""

from __future__ import annotations

import signal

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.state import Knobs
from tests.acceptance.manager import wait_until
from tests.acceptance.pair import NAMES, Pair


@pytest.fixture
def gitlab():
    with PretendGitLab(threads=96, knobs=Knobs(update_interval_s=1)) as server:
        yield server
        assert server.violations() == []


@pytest.fixture
def make_pair(tmp_path, gitlab, empty_postgres_url):
    made = []

    def make(**keywords):
        pair = Pair(tmp_path, gitlab, empty_postgres_url, **keywords)
        made.append(pair)
        pair.start()
        return pair

    yield make
    for pair in made:
        pair.close()


def other(name: str) -> str:
    return next(each for each in NAMES if each != name)


def test_law_5_two_managers_share_jobs_and_never_pass_the_pools_limit(make_pair):
    pair = make_pair(machines=3, capacity=1)
    pair.enqueue(12, "failing", 0.5)
    pair.settle()
    assert pair.wrongs() == []
    assert pair.most_at_once() <= 3
    assert len(pair.ran("a")) + len(pair.ran("b")) == 12


def test_law_4_the_jobs_of_a_killed_manager_are_ended_by_the_other(make_pair):
    pair = make_pair()
    pair.enqueue(4, "slow", 12.0)
    pair.enqueue(1, "halves", 12.0)
    pair.enqueue(1, "large", 12.0)
    busiest = max(pair.await_running(6).items(), key=lambda item: item[1])[0]
    pair.kill(busiest)
    pair.await_takeover(other(busiest))
    pair.settle()
    assert pair.wrongs() == []


def test_law_5_a_manager_that_slept_past_its_claim_does_no_harm_and_works_on(make_pair):
    pair = make_pair()
    pair.enqueue(5, "slow", 20.0)
    pair.enqueue(1, "large", 20.0)
    busiest = max(pair.await_running(6).items(), key=lambda item: item[1])[0]
    pair.pause(busiest)
    pair.await_takeover(other(busiest))
    wait_until(lambda: pair.managers[other(busiest)].events("job_followed"), 60, "the first followed job")
    pair.resume(busiest)
    wait_until(lambda: pair.managers[busiest].events("claims_lost"), 60, "the woken one to notice")
    pair.gitlab.wait_for(*pair.known, timeout=90)
    # and now the woken one is needed
    pair.kill(other(busiest))
    later = pair.enqueue(3, "failing", 1.0)
    pair.gitlab.wait_for(*later, timeout=90)
    pair.await_takeover(busiest)
    pair.settle()
    assert pair.wrongs() == []
    assert set(later) <= set(pair.ran(busiest))


@pytest.mark.parametrize("ended_by", ["kill", "pause"])
def test_law_2_a_machine_that_a_lost_manager_was_making_is_made_once(make_pair, ended_by):
    pair = make_pair(machines=2, capacity=3)
    pair.enqueue(6, "failing", 1.0)
    owner = pair.pool_owner()
    machines = pair.shared / "local" / "machines"
    wait_until(lambda: any(machines.glob("*")), 60, "the first machine")
    getattr(pair, ended_by)(owner)
    pair.await_takeover(other(owner))
    if ended_by == "pause":
        pair.resume(owner)
    pair.settle()
    assert pair.wrongs() == []
    assert pair.most_at_once() <= 2


def test_law_4_an_end_that_gitlab_has_not_heard_is_told_by_the_other_manager(make_pair):
    pair = make_pair(machines=2, capacity=2)
    fault = pair.gitlab.add_fault("status", "final", status=503, count=None)
    pair.enqueue(4, "large", 3.0)
    wait_until(lambda: sum(pair.owners("finishing").values()) == 4, 90, "the end of the scripts")
    busiest = max(pair.owners("finishing").items(), key=lambda item: item[1])[0]
    pair.kill(busiest)
    pair.await_takeover(other(busiest))
    pair.gitlab.lift_fault(fault)
    pair.settle()
    assert pair.wrongs() == []


def test_law_5_a_manager_that_stops_hands_its_work_over_at_once(make_pair):
    pair = make_pair()
    pair.enqueue(6, "slow", 10.0)
    pair.await_running(6)
    first = pair.pool_owner()
    pair.gitlab.manager_takeover()
    assert pair.managers[first].stop(signal.SIGTERM, timeout=60) == 0
    pair.gitlab.manager_takeover()
    pair.await_takeover(other(first))
    pair.settle()
    assert pair.wrongs() == []
