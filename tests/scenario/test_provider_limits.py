"""Laws 1 and 10 while machines are made, aged, used up, outdated and no longer wanted."""

from __future__ import annotations

import random

import pytest

from fleet.model.lifecycle import InstanceState, JobState
from fleet.sdk.testing import (
    BlindCloud,
    ForgetfulCloud,
    FullCloud,
    LyingCloud,
    ShortCloud,
    StubbornCloud,
    StutteringCloud,
    ThrottlingCloud,
)
from tests.scenario.world import placements, pool_table

S = InstanceState
NIGHT = """
[[runners.autoscaler.policy]]
idle_count = 3
idle_time = "10m"
timezone = "UTC"
[[runners.autoscaler.policy]]
periods = ["* 13 * * *"]
idle_count = 0
idle_time = "0s"
timezone = "UTC"
"""


def test_law_1_a_change_of_policy_by_the_clock_keeps_leased_machines(make_cloud, make_world, clock):
    cloud = make_cloud()
    world = make_world(cloud, tables=NIGHT)
    jobs = world.enqueue(2)
    world.run(10)
    assert len(cloud.alive()) == 5
    clock.advance(3600)
    world.run(60)
    assert len(cloud.alive()) == 2
    assert all(world.is_leased(job) for job in jobs)
    world.finish(*jobs)
    world.run(20)
    assert cloud.alive() == ()


def test_law_1_an_outdated_machine_goes_only_when_it_is_free(make_cloud, make_world):
    cloud = make_cloud()
    tables = '[[runners.autoscaler.policy]]\nidle_count = 1\nidle_time = "1h"'
    world = make_world(cloud, tables=tables)
    [job] = world.enqueue()
    world.run(10)
    old = set(cloud.alive())
    assert len(old) == 2
    world.configure(pool_table(tables=tables, keys='instance_ready_command = "true"'))
    world.run(20)
    held = world.lease_of(job).instance
    [kept] = [each for each in world.rows() if each.machine_id in old]
    assert kept.instance_id == held
    assert kept.leases == 1
    world.finish(job)
    world.run(20)
    assert not old & set(cloud.alive())
    assert len(world.rows(S.READY)) == 1
    assert "settings version" in " ".join(line.reason for line in world.story(kept.instance_id))


def test_law_1_a_machine_over_its_age_runs_its_job_to_the_end_and_is_replaced(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(cloud, fleet='max_age = "1h"')
    [job] = world.enqueue()
    world.run(10)
    [name] = cloud.alive()
    world.clock.advance(7200)
    world.run(20)
    assert cloud.alive() == (name,)
    [second] = world.enqueue()
    world.run(20)
    assert world.is_leased(second)
    assert world.lease_of(second).instance != world.lease_of(job).instance
    world.finish(job)
    world.run(20)
    assert name not in cloud.alive()


def test_a_machine_runs_no_more_jobs_than_its_use_count(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(
        cloud, keys="max_use_count = 2\nmax_instances = 1", tables='[[runners.autoscaler.policy]]\nidle_time = "1h"'
    )
    used = []
    for _ in range(5):
        [job] = world.enqueue()
        world.run(20)
        used.append(world.lease_of(job).instance)
        world.finish(job)
    assert len(set(used)) == 3
    assert used[0] == used[1] != used[2] == used[3] != used[4]
    assert cloud.most == 1


def test_the_creation_throttle_is_honoured(make_cloud, make_world, clock):
    cloud = make_cloud(max_batch=1)
    throttle = "[runners.autoscaler.scale_throttle]\nlimit = 1\nburst = 2"
    world = make_world(cloud, tables=throttle)
    world.enqueue(8)
    made = []
    for _ in range(10):
        world.step()
        made.append(len(cloud.alive()))
        clock.advance(1)
    assert made[:7] == [2, 3, 4, 5, 6, 7, 8]


def test_law_10_a_burst_never_passes_max_instances(make_cloud, make_world):
    cloud = make_cloud(lag_s=6, delete_s=8)
    world = make_world(cloud, keys="max_instances = 5\nmax_use_count = 1")
    jobs = world.enqueue(40)
    for _ in range(100):
        world.run(6)
        world.finish(*[job for job in jobs if world.is_leased(job)])
        jobs = [job for job in jobs if world.job(job).state is not JobState.FINISHED]
        if not jobs:
            break
    assert jobs == []
    assert cloud.most == 5


def illness(dice: random.Random, cloud):
    """One of many, for a while."""
    return dice.choice(
        [
            lambda: cloud,
            lambda: BlindCloud(cloud, times=dice.randint(1, 9)),
            lambda: ForgetfulCloud(cloud, times=dice.randint(1, 3)),
            lambda: FullCloud(cloud, placements=["near"]),
            lambda: LyingCloud(cloud, times=1),
            lambda: ShortCloud(cloud, most=1),
            lambda: StubbornCloud(cloud, times=dice.randint(1, 4)),
            lambda: StutteringCloud(cloud),
            lambda: ThrottlingCloud(cloud, times=dice.randint(1, 3), calls=["create", "delete"]),
        ]
    )()


@pytest.mark.parametrize("seed", range(4))
def test_laws_1_2_6_and_10_hold_whatever_the_cloud_does(make_cloud, make_world, seed):
    """Random illnesses, kills and jobs; in the end all jobs ran, nothing is left, and no limit was ever passed."""
    dice = random.Random(seed)
    cloud = make_cloud(lag_s=5, boot_s=4, delete_s=6, max_batch=3)
    config = pool_table(keys="max_instances = 6\nmax_use_count = 3", tables=placements("near", "far"))
    world = make_world(cloud, config)
    jobs: list[str] = []
    for _ in range(25):
        world.sick("p", illness(dice, cloud))
        jobs += world.enqueue(dice.randint(0, 2))
        held = {world.lease_of(job).instance for job in jobs if world.is_leased(job)}
        world.run(dice.choice([2, 6, 20]))
        leased = {each.instance_id for each in world.rows(S.READY, S.DRAINING)}
        assert held <= leased, "law 1: a leased machine was removed"
        done = [job for job in jobs if world.is_leased(job) and dice.random() < 0.7]
        world.finish(*done)
        jobs = [job for job in jobs if job not in done]
        if dice.random() < 0.1:
            world.restart(config)
    world.sick("p", cloud)
    for _ in range(60):
        world.run(30)
        done = [job for job in jobs if world.is_leased(job)]
        world.finish(*done)
        jobs = [job for job in jobs if job not in done]
        if not jobs and not cloud.alive() and not world.rows():
            break
    assert jobs == []
    assert world.rows() == []
    assert cloud.alive() == ()
    assert cloud.most <= 6


def test_a_placement_whose_machines_do_not_come_up_in_time_is_blamed(make_cloud, make_world):
    cloud = make_cloud(boot_s=10_000)
    world = make_world(cloud, tables=placements("near", "far"), fleet='creating_timeout = "30s"')
    world.enqueue()
    world.run(40)
    assert "it has been creating for" in world.cool_downs()["placement:p/near"].reason
    assert {each.placement for each in world.rows()} == {"far"}
