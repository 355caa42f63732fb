"""Law 6: what carries our tags and nobody knows is deleted, what is another store's is told and never touched."""

from __future__ import annotations

from fleet.model.lifecycle import InstanceState
from fleet.sdk import TAG_POOL, TAG_REQUEST, TAG_STORE
from fleet.store import managers
from tests.scenario.world import STORE, pool_table

OURS = {TAG_STORE: STORE, TAG_POOL: "p", TAG_REQUEST: "never-asked"}


def test_law_6_an_orphan_is_deleted_after_two_listings_and_the_visibility_lag(make_cloud, make_world):
    cloud = make_cloud(lag_s=30)
    world = make_world(cloud)
    cloud.plant("stray", OURS)
    world.run(28)
    assert cloud.alive() == ("stray",)
    world.run(8)
    assert cloud.alive() == ()
    world.run(32)
    [row] = world.rows(InstanceState.GONE)
    assert row.machine_id == "stray"
    assert "no row knows it" in world.story(row.instance_id)[0].reason


def test_law_6_one_listing_makes_no_orphan(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(cloud)
    cloud.plant("stray", OURS)
    world.observer.activate()
    world.reaper.activate()
    assert cloud.alive() == ("stray",)


def test_law_6_another_stores_machine_is_reported_and_untouched(make_cloud, make_world, capsys):
    cloud = make_cloud()
    world = make_world(cloud)
    cloud.plant("theirs", OURS | {TAG_STORE: "store-of-somebody"})
    world.run(120)
    assert cloud.alive() == ("theirs",)
    assert world.rows() == []
    told = [line for line in capsys.readouterr().out.splitlines() if "machine_reported" in line]
    assert len(told) == 1
    assert "store-of-somebody" in told[0]


def test_law_6_after_a_restored_database_sweeping_waits_for_a_person(make_cloud, make_world, capsys):
    cloud = make_cloud()
    world = make_world(cloud)
    world.store.write(lambda tx: managers.set_sweeping(tx, False, "the database was restored"))
    cloud.plant("stray", OURS)
    world.run(120)
    assert cloud.alive() == ("stray",)
    assert "the database was restored" in capsys.readouterr().out
    world.store.write(lambda tx: managers.set_sweeping(tx, True, "a person confirmed"))
    world.run(10)
    assert cloud.alive() == ()


def test_law_6_what_an_open_request_may_have_made_is_no_orphan(make_cloud, make_world):
    cloud = make_cloud()
    world = make_world(cloud)
    world.down = {"provider:memory"}
    world.enqueue()
    world.planner.activate()
    [request] = world.open_requests()
    cloud.plant("made-and-never-told", OURS | {TAG_REQUEST: request})
    world.run(10)
    [row] = world.rows()
    assert (row.machine_id, row.state) == ("made-and-never-told", InstanceState.READY)


def test_law_6_an_orphan_counts_against_the_limit_of_its_pool(make_cloud, make_world):
    cloud = make_cloud(delete_s=100)
    world = make_world(cloud, keys="max_instances = 1")
    cloud.plant("stray", OURS)
    world.run(10)
    [job] = world.enqueue()
    world.run(60)
    assert not world.is_leased(job)
    assert cloud.most <= 1
    world.run(60)
    assert world.is_leased(job)


def test_law_6_a_retired_pool_empties_once_its_jobs_have_ended(make_cloud, make_world):
    cloud = make_cloud("a")
    both = pool_table("p", tables="[[runners.autoscaler.policy]]\nidle_count = 2") + pool_table("q", number=2)
    world = make_world({"p": cloud, "q": make_cloud("b")}, both)
    [job] = world.enqueue()
    world.run(10)
    assert len(cloud.alive()) == 3
    world.configure(pool_table("q", number=2))
    world.run(20)
    [row] = world.rows(pool="p")
    assert (row.leases, row.state) == (1, InstanceState.READY)
    world.finish(job)
    world.run(20)
    assert world.rows(pool="p") == []
    assert cloud.alive() == ()
