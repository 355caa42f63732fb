"""Answers that are wrong, late, doubled or lost: one machine for one intent, and none that nobody knows (laws 2, 6)."""

from __future__ import annotations

import pytest

from fleet.model.lifecycle import InstanceState
from fleet.sdk import ProviderUnavailable
from fleet.sdk.testing import (
    BlindCloud,
    ForgetfulCloud,
    LaggingCloud,
    LyingCloud,
    RefusingCloud,
    StubbornCloud,
    StutteringCloud,
)
from fleet.store import pools
from tests.scenario.world import pool_table

S = InstanceState


def test_law_2_a_lost_answer_leads_to_one_machine(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(ForgetfulCloud(cloud, times=3))
    [job] = world.enqueue()
    world.run(120)
    assert world.is_leased(job)
    assert len(cloud.alive()) == 1
    assert cloud.most == 1


def test_law_2_a_lost_answer_is_found_in_the_listing_before_anybody_asks_again(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(ForgetfulCloud(cloud))
    [job] = world.enqueue()
    world.run(4)
    assert world.is_leased(job)
    assert cloud.creates == 1
    [row] = world.rows()
    assert "found in the listing" in world.story(row.instance_id)[1].reason
    world.run(120)
    assert cloud.creates == 1, "a request whose machines are known is asked for no more"


def test_law_2_a_killed_manager_asks_again_with_the_token_of_the_first_time(make_cloud, make_world):
    cloud = make_cloud(lag_s=60)
    config = pool_table()
    world = make_world(ForgetfulCloud(cloud, times=1), config)
    [job] = world.enqueue()
    world.step()
    assert len(world.open_requests()) == 1
    world.restart(config)
    world.run(100)
    assert world.is_leased(job)
    assert cloud.creates == 2
    assert cloud.most == 1


def test_a_doubled_answer_leads_to_one_machine_for_each_instance(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(StutteringCloud(cloud))
    jobs = world.enqueue(3)
    world.run(6)
    assert all(world.is_leased(job) for job in jobs)
    assert len({each.machine_id for each in world.rows()}) == 3
    assert len(cloud.alive()) == 3


def test_a_machine_made_in_spite_of_an_error_is_found_and_deleted(make_cloud, make_world):
    cloud = make_cloud(lag_s=10)
    world = make_world(LyingCloud(cloud, times=1), keys="max_instances = 1")
    [job] = world.enqueue()
    world.step()
    [row] = world.rows(S.DELETING)
    assert row.machine_id is None
    assert len(cloud.alive()) == 1
    world.run(60)
    assert world.is_leased(job)
    assert cloud.most == 1, "the first machine was gone before the second was made: max_instances counts it"
    assert len(cloud.alive()) == 1


def test_a_listing_that_lags_a_minute_loses_no_machine_and_makes_no_second(make_cloud, make_world):
    cloud = make_cloud(lag_s=60)
    world = make_world(cloud)
    [job] = world.enqueue()
    world.run(50)
    assert not world.is_leased(job)
    world.run(20)
    assert world.is_leased(job)
    assert cloud.most == 1


def test_a_listing_that_lags_after_a_slow_answer_loses_no_machine(make_cloud, make_world, clock, seconds):
    cloud = make_cloud(lag_s=20)

    class SlowAnswer(LaggingCloud):
        """The machine counts as made when the answer is given, long after it was asked for."""

        def create(self, request):
            clock.advance(50)
            return super().create(request)

    sick = SlowAnswer(cloud, lag_s=18, now=seconds)
    world = make_world(sick)
    [job] = world.enqueue()
    world.run(60)
    assert world.is_leased(job)
    assert cloud.creates == 1


def test_law_6_a_machine_that_was_never_listed_is_not_gone_because_it_is_not_listed(
    make_cloud, make_world, clock, seconds
):
    cloud = make_cloud(lag_s=20)

    class SlowAnswer(LaggingCloud):
        """As above."""

        def create(self, request):
            clock.advance(50)
            return super().create(request)

    config = pool_table("p") + pool_table("q", number=2)
    world = make_world({"p": SlowAnswer(cloud, lag_s=18, now=seconds), "q": cloud}, config)
    [job] = world.enqueue()
    world.planner.activate()
    world.creator.activate()
    world.give_up(job)
    world.configure(pool_table("q", number=2))
    world.planner.activate()
    world.observer.activate()
    assert [each.state for each in world.rows(pool="p")] == [S.DELETING]
    world.reaper.activate()
    world.run(30)
    assert world.rows(pool="p") == []
    assert cloud.alive() == ()


def test_a_listing_that_fails_removes_nothing(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(cloud, tables='[[runners.autoscaler.policy]]\nidle_count = 2\nidle_time = "1h"')
    world.run(10)
    assert len(world.rows(S.READY)) == 2
    world.sick("p", BlindCloud(cloud))
    for name in cloud.alive():
        cloud.kill(name)
    world.run(300)
    assert len(world.rows(S.READY)) == 2, "what was not listed is not known to be gone"
    world.sick("p", cloud)
    world.run(10)
    assert [each.machine_id for each in world.rows(S.READY)] == sorted(cloud.alive())


def test_a_machine_is_missing_only_after_two_complete_listings(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(cloud, tables='[[runners.autoscaler.policy]]\nidle_count = 1\nidle_time = "1h"')
    world.run(10)
    [row] = world.rows()
    cloud.kill(row.machine_id)
    world.observer.activate()
    assert world.rows(S.READY), "one listing may be wrong"
    world.observer.activate()
    assert world.rows(S.READY) == []
    assert "missing from 2 complete listings" in world.story(row.instance_id)[-1].reason


def test_a_machine_that_the_provider_lists_as_failed_is_replaced_at_once(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(cloud, tables='[[runners.autoscaler.policy]]\nidle_count = 1\nidle_time = "1h"')
    world.run(10)
    [row] = world.rows()
    cloud.fail(row.machine_id, "the hardware broke")
    world.run(10)
    assert "the hardware broke" in " ".join(line.reason for line in world.story(row.instance_id))
    assert [each.state for each in world.rows()] == [S.READY]
    assert len(cloud.alive()) == 1


def test_a_job_on_a_vanished_machine_loses_its_lease_before_the_row_goes(make_cloud, make_world):
    cloud = make_cloud(delete_s=30)
    world = make_world(cloud)
    [job] = world.enqueue()
    world.run(6)
    [row] = world.rows()
    cloud.fail(row.machine_id, "spot was taken back")
    world.step()
    assert world.job(job).lease is None, "it never started: it waits for another machine"
    assert row.instance_id in world.stimuli(job) or "moved" in world.stimuli(job)
    story = [line.stimulus for line in world.story(row.instance_id)]
    assert story.index("machine_failed") < len(story)
    world.run(20)
    assert world.is_leased(job)


def test_a_deletion_that_takes_minutes_still_counts(make_cloud, make_world):
    cloud = make_cloud(delete_s=240)
    keys = "max_instances = 1\nmax_use_count = 1"
    world = make_world(cloud, keys=keys)
    first, second = world.enqueue(2)
    world.run(10)
    world.finish(first)
    world.run(200)
    assert not world.is_leased(second)
    assert "max_instances" in world.planner.plans["p"].waits[0].reason
    world.run(100)
    assert world.is_leased(second)
    assert cloud.most == 1


def test_a_deletion_that_never_ends_is_asked_for_again_and_counts_for_ever(make_cloud, make_world):
    cloud = make_cloud()
    stubborn = StubbornCloud(cloud)
    world = make_world(stubborn, keys="max_instances = 1\nmax_use_count = 1")
    first, second = world.enqueue(2)
    world.run(10)
    [row] = world.rows()
    world.finish(first)
    world.run(1800, every_s=20)
    assert stubborn.asked[row.machine_id] >= 1800 / 60 - 2, "deletion_retry_interval is a minute"
    assert [each.state for each in world.rows()] == [S.DELETING]
    assert not world.is_leased(second)
    assert cloud.most == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_a_hanging_create_is_given_up_with_its_instances(make_cloud, make_world, stopped):
    """The lane hangs for longer than `creating_timeout`; in the end the call may have made the machine after all."""
    cloud = make_cloud(lag_s=4)
    world = make_world(cloud, fleet='creating_timeout = "20s"')
    world.down = {"memory"}
    [job] = world.enqueue()
    world.planner.activate()
    world.creator.activate()
    [request] = world.open_requests()
    held = world.store.read(lambda tx: pools.open_requests(tx, ["p"]))
    world.run(30)
    if not stopped:
        pool = world.book.pools["p"]
        world.creator._create(held[0], pool)  # the hung call comes back now
        assert len(cloud.alive()) == 1
    world.down = set()
    world.run(60)
    assert request not in world.open_requests()
    assert world.is_leased(job)
    assert len(cloud.alive()) == 1


def test_a_deletion_that_is_refused_is_told_once_and_asked_for_again(make_cloud, make_world):
    cloud = make_cloud()
    refusing = RefusingCloud(cloud, error=lambda: ProviderUnavailable("503"), calls=["delete"], times=3)
    world = make_world(refusing, keys="max_use_count = 1")
    [job] = world.enqueue()
    world.run(10)
    [row] = world.rows()
    world.finish(job)
    world.run(100)
    assert [each.state for each in world.rows()] == [S.DELETING]
    assert list(world.stimuli(row.instance_id)).count("delete_failed") == 1
    world.run(100)
    assert world.rows() == []
    assert cloud.alive() == ()
