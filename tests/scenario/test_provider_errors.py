"""What a provider's errors lead to: the right scope cools down, the next placement is used, and all is remembered."""

from __future__ import annotations

import pytest

from fleet.model.lifecycle import InstanceState
from fleet.sdk import BadParameters, OutOfCapacity, ProviderUnavailable, QuotaExceeded, Scope
from fleet.sdk.testing import (
    BuggyCloud,
    FullCloud,
    LockedCloud,
    RefusingCloud,
    ShortCloud,
    ThrottlingCloud,
)
from tests.scenario.world import placements, pool_table

TWO = placements("near", "far", near={"zone": "eu-1a"}, far={"zone": "eu-1b"})


def test_a_full_placement_cools_down_and_the_next_one_is_used(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(FullCloud(cloud, placements=["near"]), tables=TWO)
    [job] = world.enqueue()
    world.run(10)
    assert world.is_leased(job)
    assert list(world.cool_downs()) == ["placement:p/near"]
    assert "there is no such machine" in world.cool_downs()["placement:p/near"].reason
    assert [each.placement for each in world.rows()] == ["far"]
    [made] = world.rows()
    assert "near cools down until" in world.story(made.instance_id)[0].reason


@pytest.mark.parametrize(
    ("scope", "key", "used"),
    [
        (Scope.PLACEMENT, "placement:p/near", ["far"]),
        (Scope.ZONE, "zone:memory/eu-1a", ["far"]),
        (Scope.TYPE, "type:memory/big", []),
        (Scope.REGION, "region:memory/eu", []),
        (Scope.ACCOUNT, "account:memory/memory", []),
        (Scope.CREDENTIALS, "credentials:memory/memory", []),
    ],
)
def test_an_error_stops_its_scope_and_no_more(make_cloud, make_world, scope, key, used):
    cloud = make_cloud()
    sick = RefusingCloud(cloud, error=lambda: OutOfCapacity("none to be had", scope=scope), placements=["near"])
    where = {"instance_type": "big", "region": "eu"}
    tables = placements("near", "far", near={"zone": "eu-1a", **where}, far={"zone": "eu-1b", **where})
    world = make_world(sick, tables=tables)
    world.enqueue()
    world.run(10)
    assert list(world.cool_downs()) == [key]
    assert [each.placement for each in world.rows()] == used


def test_an_accounts_quota_stops_every_pool_of_the_account(make_cloud, make_world):
    cloud = make_cloud("acme")
    full = RefusingCloud(cloud, error=lambda: QuotaExceeded("no more than 4", scope=Scope.ACCOUNT), times=1)
    config = pool_table("p") + pool_table("q", number=2)
    world = make_world({"p": full, "q": cloud}, config)
    world.enqueue()
    world.step()
    world.enqueue(pool="q")
    world.run(10)
    assert list(world.cool_downs()) == ["account:memory/acme"]
    assert cloud.alive() == ()
    assert "account:memory/acme" in world.planner.plans["q"].waits[0].reason


def test_cool_downs_are_remembered_across_a_restart_and_the_next_failure_lasts_longer(make_cloud, make_world, clock):
    cloud = make_cloud()
    config = pool_table(tables=TWO)
    sick = FullCloud(cloud)
    world = make_world(sick, config)
    world.enqueue()
    world.run(4)
    first = world.cool_downs()["placement:p/near"]
    world.restart(config)
    assert world.cool_downs()["placement:p/near"] == first
    world.run(45)
    second = world.cool_downs()["placement:p/near"]
    assert second.failures == 2
    assert 45 < (second.until - clock.instant).total_seconds() + 45 <= 30 + 60


def test_a_success_forgets_the_cool_down(make_cloud, make_world):
    world = make_world(FullCloud(make_cloud(), times=1))
    [job] = world.enqueue()
    world.run(60)
    assert world.is_leased(job)
    assert world.cool_downs() == {}


def test_throttling_slows_calls_down_and_blames_no_placement(make_cloud, make_world):
    cloud = make_cloud()
    sick = ThrottlingCloud(cloud, times=2)
    world = make_world(sick, tables=TWO)
    [job] = world.enqueue()
    world.step()
    assert list(world.cool_downs()) == ["api:memory/memory"]
    world.enqueue()
    world.step()
    # a second machine is wanted in the first placement, and the API is left alone meanwhile
    assert {each.placement for each in world.rows()} == {"near"}
    assert len(world.rows(InstanceState.REQUESTED)) == 2
    assert cloud.creates == 0
    world.run(60)
    assert world.is_leased(job)
    assert {each.placement for each in world.rows()} == {"near"}
    assert world.cool_downs() == {}


def test_the_time_that_a_throttling_api_asks_for_is_granted(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(ThrottlingCloud(cloud, retry_after_s=120, times=1))
    world.enqueue()
    world.run(110)
    assert cloud.alive() == ()
    world.run(30)
    assert len(cloud.alive()) == 1


def test_refused_credentials_stop_the_account_and_say_why(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(LockedCloud(cloud), tables=TWO)
    world.enqueue()
    world.run(10)
    assert list(world.cool_downs()) == ["credentials:memory/memory"]
    assert "renew them" in world.planner.plans["p"].waits[0].reason


def test_a_request_that_can_never_succeed_fails_with_its_reason_in_the_journal(make_cloud, make_world):
    cloud = make_cloud(lag_s=5)
    sick = RefusingCloud(cloud, error=lambda: BadParameters("instance_type 'm9' is unknown; correct it"))
    world = make_world(sick)
    world.enqueue()
    world.step()
    [row] = world.rows(InstanceState.DELETING)
    assert world.story(row.instance_id)[-1].reason == "instance_type 'm9' is unknown; correct it"
    assert world.stimuli(row.instance_id)[-1] == "bad_parameters"
    world.run(4)
    assert len(world.rows()) == 1, "before the listing must show it, nothing is proved"
    world.run(6)
    assert world.rows() == []
    assert world.open_requests() == set()


def test_a_bug_in_a_plugin_is_an_unknown_answer_and_is_asked_again(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(BuggyCloud(cloud, calls=["create"], times=2))
    [job] = world.enqueue()
    world.run(40)
    assert world.is_leased(job)
    assert len(cloud.alive()) == 1


def test_an_api_that_is_away_is_asked_again_with_the_same_token(make_cloud, make_world):
    cloud = make_cloud()
    tokens = []

    class Watched(RefusingCloud):
        def create(self, request):
            tokens.append(request.token)
            return super().create(request)

    world = make_world(Watched(cloud, error=lambda: ProviderUnavailable("503"), times=3))
    [job] = world.enqueue()
    world.run(120)
    assert world.is_leased(job)
    assert len(tokens) == 4
    assert len(set(tokens)) == 1


def test_a_batch_that_falls_short_keeps_what_was_made_and_asks_elsewhere_for_the_rest(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(ShortCloud(cloud, most=1, times=1), tables=TWO)
    jobs = world.enqueue(3)
    world.step()
    assert list(world.cool_downs()) == ["placement:p/near"]
    world.run(20)
    assert all(world.is_leased(job) for job in jobs)
    assert sorted(each.placement for each in world.rows()) == ["far", "far", "near"]
    assert len(cloud.alive()) == 3


def test_a_full_placement_by_its_own_limit_passes_machines_on_to_the_next(make_cloud, make_world):
    cloud = make_cloud()
    tables = placements("near", "far", "last", near={"max_instances": 1}, far={"max_instances": 2})
    world = make_world(cloud, tables=tables)
    world.enqueue(5)
    world.run(10)
    names = [each.placement for each in world.rows()]
    assert sorted(names) == ["far", "far", "last", "last", "near"]
