"""What people read of the fleet: complete, page by page, in a fixed order, and without a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fleet.model.ids import ManagerId
from fleet.model.job import Outcome
from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.model.policy import CoolDown
from fleet.store import instances, jobs, leases, managers, pools, snapshots
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.listings import (
    ListedPool,
    Page,
    Slots,
    list_cool_downs,
    list_instances,
    list_managers,
    list_pools,
    list_runners,
    one_instance,
)
from fleet.store.stories import ListedJob, Story, explain, list_jobs
from tests.contract.store.world import RUNNER, HandClock, add_instance, add_job, add_pool, add_runner, begin, granted


def pages(store: Store, listing: Callable[..., Page[Any]], limit: int, **wanted: Any) -> list[Any]:
    """Walk a listing to its end, one transaction a page."""
    found: list[Any] = []
    after = ""
    while True:
        page = store.read(lambda tx, after=after: listing(tx, limit=limit, after=after, **wanted))  # type: ignore[misc]
        assert len(page.items) <= limit
        found += page.items
        if page.next is None:
            return found
        assert len(page.items) == limit
        after = page.next


def put_pool(tx: Tx, name: str, *, fingerprint: str = "f1", **settings: Any) -> None:
    pools.put_pool(tx, name, plugin="local", settings=settings, fingerprint=fingerprint, keys=("k", "u"))


def test_a_pool_is_listed_with_its_machines_and_slots(store: Store) -> None:
    def work(tx: Tx) -> None:
        begin(tx)
        put_pool(tx, "linux", capacity_per_instance=3, max_instances=9)
        put_pool(tx, "other")
        snapshots.set_ask_limit(tx, "linux", 4)
        managers.claim_pools(tx, ManagerId("m-1"))
        used = add_instance(tx)
        granted(tx, used, slot=0)
        granted(tx, used, slot=2)
        sick = add_instance(tx)
        granted(tx, sick)
        instances.blame(tx, sick, "bad disk")
        drains = add_instance(tx)
        granted(tx, drains)
        instances.move(tx, drains, InstanceState.DRAINING, stimulus="s", reason="r")
        add_instance(tx, state=InstanceState.BOOTING)
        add_instance(tx, state=InstanceState.GONE)
        put_pool(tx, "linux", fingerprint="f2", capacity_per_instance=3, max_instances=9)
        tx.sql.execute(sa.text("UPDATE instances SET settings_version = 2 WHERE state = 'booting'"))
        for name in ("a", "b", "c"):
            assert leases.ask(tx, reservation_id=name, pool="linux", runner_key=RUNNER, manager_id="m-1")
        job = add_job(tx)
        leases.owe(tx, "c", pool="linux", runner_key=RUNNER, manager_id="m-1", job_key=job)
        add_job(tx, waiting=False)

    store.write(work)
    page = store.read(list_pools)
    assert page.next is None
    assert page.items[0] == ListedPool(
        pool="linux",
        plugin="local",
        owner="m-1",
        epoch=1,
        settings_version=2,
        capacity_per_instance=3,
        max_instances=9,
        ask_limit=3,
        retired_at=None,
        instances={"ready": 2, "draining": 1, "booting": 1},
        outdated=3,
        unhealthy=1,
        slots=Slots(used=4, free=1, asking=2, owed=1, waiting=1),
    )
    assert (page.items[1].pool, page.items[1].instances, page.items[1].slots) == ("other", {}, Slots())
    assert [each.pool for each in store.read(lambda tx: list_pools(tx, only=["other"])).items] == ["other"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_pages_together_are_the_whole_in_order(store: Store, clock: HandClock, limit: int) -> None:
    def work(tx: Tx, number: int) -> None:
        add_pool(tx, f"p-{number}")
        add_instance(tx, f"i-{number}", pool="p-0")
        add_job(tx, f"open-{number}", pool="p-0")
        jobs.move_job(tx, add_job(tx, f"over-{number}", pool="p-0"), 1, JobState.ABANDONED, stimulus="s", reason="r")

    for number in range(5):
        store.write(lambda tx, n=number: work(tx, n))  # type: ignore[misc]
        clock.advance(0.000_001 if number % 2 else 0)
    assert [each.pool for each in pages(store, list_pools, limit)] == [f"p-{n}" for n in range(5)]
    assert [each.instance_id for each in pages(store, list_instances, limit)] == [f"i-{n}" for n in range(5)]
    ordered = [f"open-{n}" for n in range(5)] + [f"over-{n}" for n in reversed(range(5))]
    assert [each.job_key for each in pages(store, list_jobs, limit)] == ordered


def test_a_page_goes_on_where_the_last_ended_though_rows_came_and_went(store: Store) -> None:
    store.write(lambda tx: [add_job(tx, f"j-{n}") for n in range(6)])
    first = store.read(lambda tx: list_jobs(tx, limit=3))
    assert first.next is not None

    def change(tx: Tx) -> None:
        jobs.move_job(tx, first.items[-1].job_key, 1, JobState.ABANDONED, stimulus="s", reason="r")
        add_job(tx, "j-9")

    store.write(change)
    second = store.read(lambda tx: list_jobs(tx, limit=3, after=first.next or ""))
    assert [each.job_key for each in second.items] == ["j-3", "j-4", "j-5"]


def test_a_cursor_that_is_none_is_refused_in_plain_words(store: Store) -> None:
    with pytest.raises(StoreError, match="take `next` of the page before"):
        store.read(lambda tx: list_jobs(tx, after="7"))
    with pytest.raises(StoreError, match="take `next` of the page before"):
        store.read(lambda tx: list_instances(tx, after="yesterday|x"))


def test_an_instance_is_listed_with_the_jobs_on_it(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        add_pool(tx)
        address = instances.sealed_address(tx, {"internal": "10.0.0.1", "port": 22}, {"endpoint": "hidden-secret"})
        instance = add_instance(tx, machine_id="vm-7", address=address)
        return instance, granted(tx, instance, add_job(tx, "j"), slot=1)

    instance, lease = store.write(work)
    (listed,) = store.read(list_instances).items
    assert listed == store.read(lambda tx: one_instance(tx, instance))
    assert (listed.machine_id, listed.address_internal, listed.address_external) == ("vm-7", "10.0.0.1", None)
    (slot,) = listed.slots
    assert (slot.slot, slot.lease_id, slot.lease_state, slot.job_key) == (1, lease, "granted", "j")
    assert "hidden-secret" not in json.dumps(asdict(listed))
    assert datetime.fromisoformat(listed.created_at).utcoffset() == timedelta(0)
    assert store.read(lambda tx: one_instance(tx, "nobody")) is None


def test_instances_are_narrowed_by_pool_and_state_and_the_gone_are_shown_when_asked_for(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_pool(tx)
        add_pool(tx, "other")
        add_instance(tx, "ready")
        add_instance(tx, "gone", state=InstanceState.GONE)
        add_instance(tx, "boots", state=InstanceState.BOOTING)
        add_instance(tx, "far", pool="other")

    store.write(work)

    def names(**wanted: Any) -> set[str]:
        return {each.instance_id for each in store.read(lambda tx: list_instances(tx, **wanted)).items}

    assert names() == {"ready", "boots", "far"}
    assert names(gone=True) == {"ready", "boots", "far", "gone"}
    assert names(pool="linux") == {"ready", "boots"}
    assert names(states=[InstanceState.GONE]) == {"gone"}
    assert names(states=[InstanceState.READY], pool="other") == {"far"}


def finished(tx: Tx, key: str) -> tuple[str, str]:
    """A job that failed and was told to GitLab; its instance and lease."""
    instance = add_instance(tx)
    lease = granted(tx, instance, add_job(tx, key))
    jobs.move_job(tx, key, 1, JobState.RUNNING, stimulus="started", reason="r")
    outcome = Outcome(state="failed", failure_reason="script_failure", exit_code=3, message="exit code 3")
    jobs.finish_job(tx, key, 1, outcome, log_bytes=70)
    jobs.note_sent(tx, [(key, 1, 99, 1)])
    jobs.move_job(tx, key, 1, JobState.FINISHED, stimulus="accepted", reason="GitLab has it")
    for state in (LeaseState.RUNNING, LeaseState.CLEANING, LeaseState.RELEASED):
        leases.move_lease(tx, lease, state, stimulus="s", reason="r")
    return instance, lease


def test_a_job_is_listed_with_its_machine_and_its_end(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        add_pool(tx)
        add_runner(tx)
        return finished(tx, "j")

    instance, lease = store.write(work)
    (job,) = store.read(list_jobs).items
    assert (job.runner_name, job.instance_id, job.lease_id, job.slot) == ("a runner", instance, lease, 0)
    assert (job.result, job.failure_reason, job.exit_code, job.message) == (
        "failed",
        "script_failure",
        3,
        "exit code 3",
    )
    assert (job.log_bytes, job.sent_bytes, job.state) == (70, 99, "finished")
    json.dumps(asdict(job))


def test_jobs_are_narrowed_by_pool_runner_and_state(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_job(tx, "a", pool="one", runner="r1")
        add_job(tx, "b", pool="two", runner="r1", waiting=False)
        jobs.move_job(tx, add_job(tx, "c", pool="two", runner="r2"), 1, JobState.ABANDONED, stimulus="s", reason="r")

    store.write(work)

    def names(**wanted: Any) -> set[str]:
        return {each.job_key for each in store.read(lambda tx: list_jobs(tx, **wanted)).items}

    assert names(pool="two") == {"b", "c"}
    assert names(runner_key="r1") == {"a", "b"}
    assert names(states=[JobState.WAITING, JobState.ABANDONED]) == {"a", "c"}


def test_managers_are_listed_with_what_they_own_and_whether_they_live(store: Store) -> None:
    def work(tx: Tx) -> None:
        begin(tx)
        begin(tx, "m-2", ttl=timedelta(seconds=-1))
        add_pool(tx)
        managers.claim_pools(tx, ManagerId("m-1"))
        add_job(tx, owner="m-2")

    store.write(work)
    one, two = store.read(list_managers)
    assert (one.manager_id, one.alive, one.pools, one.open_jobs) == ("m-1", True, ("linux",), 0)
    assert (two.manager_id, two.alive, two.pools, two.open_jobs) == ("m-2", False, (), 1)
    json.dumps(asdict(one))


def test_runners_are_listed_with_their_open_jobs_and_without_their_token(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_runner(tx, token="hidden-token")
        add_job(tx)
        add_job(tx, waiting=False)
        jobs.move_job(tx, add_job(tx), 1, JobState.ABANDONED, stimulus="s", reason="r")

    store.write(work)
    (runner,) = store.read(list_runners)
    assert (runner.runner_key, runner.jobs) == (RUNNER, {"waiting": 1, "received": 1})
    assert "hidden-token" not in json.dumps(asdict(runner))


def test_cool_downs_are_listed_whether_they_still_run_or_not(store: Store) -> None:
    def work(tx: Tx) -> None:
        for scope, seconds in (("a", -1), ("b", 60)):
            until = tx.now + timedelta(seconds=seconds)
            snapshots.remember_cool_down(tx, CoolDown(scope=scope, until=until, failures=1, reason="r"))

    store.write(work)
    assert [(each.scope, each.running) for each in store.read(list_cool_downs)] == [("a", False), ("b", True)]


def story(store: Store, name: str) -> Story:
    found = store.read(lambda tx: explain(tx, name))
    assert found is not None
    return found


def test_law_8_a_job_is_explained_by_any_of_its_names(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        add_pool(tx)
        return finished(tx, "j")

    instance, lease = store.write(work)
    told = story(store, "j")
    assert isinstance(told.job, ListedJob)
    assert story(store, str(told.job.gitlab_job_id)) == told
    assert story(store, lease) == told
    assert told.instance is not None
    assert told.instance.instance_id == instance
    assert [line.stimulus for line in told.lines if line.kind == "job"] == [
        "received",
        "acknowledged",
        "leased",
        "started",
        "script_failure",
        "accepted",
    ]
    assert all(line.reason for line in told.lines)
    json.dumps(asdict(told))


def test_law_8_a_removed_instance_is_explained_also_when_only_the_journal_knows_it(store: Store) -> None:
    def work(tx: Tx) -> str:
        add_pool(tx)
        instance = add_instance(tx)
        instances.remove(tx, instance, stimulus="idle", reason="idle for 10 min, and 2 more are free")
        return instance

    instance = store.write(work)
    told = story(store, instance)
    assert (told.kind, told.instance and told.instance.state) == ("instance", "deleting")
    assert told.lines[-1].reason == "idle for 10 min, and 2 more are free"
    store.write(lambda tx: tx.sql.execute(sa.text("DELETE FROM instances")))
    assert story(store, instance) == Story(kind="instance", object_id=instance, lines=told.lines)


def test_a_number_that_gitlab_handed_out_twice_tells_the_newest_and_names_the_others(
    store: Store, clock: HandClock
) -> None:
    store.write(lambda tx: add_job(tx, "old"))
    clock.advance(5)
    store.write(lambda tx: add_job(tx, "new"))
    store.write(lambda tx: tx.sql.execute(sa.text("UPDATE jobs SET gitlab_job_id = 77")))
    told = story(store, "77")
    assert (told.object_id, told.others) == ("new", ("old",))


@pytest.mark.parametrize("name", ["nobody", "", "999999999999999999999999", "\uff17\uff17", "-1"])
def test_what_nobody_knows_has_no_story(store: Store, name: str) -> None:
    assert store.read(lambda tx: explain(tx, name)) is None
