"""Pools, runners, requests, instances and cool-downs: what was stored is what comes back, and changes by its rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa

from fleet.model.ids import InstanceId, PoolName
from fleet.model.lifecycle import INSTANCE_DEADLINES_S, IllegalTransition, InstanceState
from fleet.model.policy import CoolDown, PoolLimits, Throttle
from fleet.store import instances, jobs, journal, leases, pools, snapshots
from fleet.store.database import Store, Tx
from fleet.store.tables import instances as instance_rows
from fleet.store.tables import jobs as job_rows
from tests.contract.store.world import (
    RUNNER,
    add_instance,
    add_job,
    add_pool,
    add_runner,
    at_once,
    fresh,
    granted,
)


def put(tx: Tx, **changed: object) -> int:
    values = {"plugin": "local", "settings": {"n": 1}, "fingerprint": "f1", "keys": ("private", "public"), **changed}
    return pools.put_pool(tx, "linux", **values)  # type: ignore[arg-type]


def test_a_pools_version_grows_only_when_its_machines_become_outdated(store: Store) -> None:
    assert store.write(put) == 1
    assert store.write(lambda tx: put(tx, settings={"n": 2})) == 1
    assert store.write(lambda tx: put(tx, settings={"n": 2}, fingerprint="f2")) == 2
    assert store.write(lambda tx: put(tx, settings={"n": 2}, fingerprint="f2")) == 2


def test_a_pool_keeps_its_first_keys_and_takes_the_newest_settings(store: Store) -> None:
    store.write(put)
    store.write(lambda tx: put(tx, settings={"n": 2}, keys=("other", "other")))
    (row,) = store.read(pools.all_pools)
    assert (row.client_key, row.client_public_key, row.settings) == ("private", "public", {"n": 2})


def test_managers_that_store_one_pool_at_once_agree(managers: tuple[Store, ...]) -> None:
    works = [partial(managers[n % len(managers)].write, lambda tx, n=n: put(tx, keys=(f"p{n}", "u"))) for n in range(8)]
    assert at_once(works) == [1] * 8
    assert len(managers[0].read(pools.all_pools)) == 1


def test_a_retired_pool_asks_for_nothing_and_comes_back_when_it_is_named_again(store: Store) -> None:
    store.write(lambda tx: add_pool(tx, ask_limit=4))
    store.write(lambda tx: pools.retire_pool(tx, "linux"))
    store.write(lambda tx: pools.retire_pool(tx, "linux"))
    (row,) = store.read(pools.all_pools)
    assert row.retired_at is not None
    assert row.ask_limit == 0
    store.write(put)
    (row,) = store.read(pools.all_pools)
    assert row.retired_at is None
    told = [line.stimulus for line in store.read(lambda tx: journal.story_of(tx.sql, "linux"))]
    assert told == ["appeared", "retired", "returned"]


def test_a_renamed_pool_keeps_its_machines_jobs_requests_and_memory(store: Store) -> None:
    def work(tx: Tx) -> str:
        add_pool(tx)
        add_runner(tx)
        pools.add_request(tx, request_id="r", pool="linux", placement="default", count=1, parameters={}, reason="r")
        instance, job = add_instance(tx), add_job(tx)
        granted(tx, instance, job)
        for scope in ("placement:linux/a", "placement:linux-2/a", "zone:aws/1"):
            snapshots.remember_cool_down(
                tx, CoolDown(scope=scope, until=tx.now + timedelta(60), failures=1, reason="r")
            )
        return instance

    instance = store.write(work)
    assert store.write(lambda tx: pools.rename_pool(tx, "linux", "debian")) is True
    (row,) = store.read(pools.all_pools)
    assert (row.pool, row.settings_version, row.client_key) == ("debian", 1, "private-half")
    found = store.read(lambda tx: instances.instance(tx, InstanceId(instance)))
    assert found is not None
    assert (found.pool, found.leases) == ("debian", 1)
    assert store.read(lambda tx: [each.pool for each in jobs.open_jobs(tx, "m-1")]) == ["debian"]
    assert [each.pool for each in store.read(pools.all_runners)] == ["debian"]
    assert [each.pool for each in store.read(lambda tx: pools.open_requests(tx, ["debian"]))] == ["debian"]
    scopes = [each.scope for each in store.read(snapshots.running_cool_downs)]
    assert scopes == ["placement:debian/a", "placement:linux-2/a", "zone:aws/1"]


def test_renaming_what_is_unknown_or_onto_another_pool_changes_nothing(store: Store) -> None:
    store.write(lambda tx: (add_pool(tx, "a"), add_pool(tx, "b")))
    assert store.write(lambda tx: pools.rename_pool(tx, "nowhere", "c")) is False
    assert store.write(lambda tx: pools.rename_pool(tx, "a", "b")) is False
    assert [row.pool for row in store.read(pools.all_pools)] == ["a", "b"]


def test_a_runner_is_stored_with_its_newest_token(store: Store) -> None:
    store.write(lambda tx: add_runner(tx, token="old"))
    store.write(lambda tx: add_runner(tx, token="new"))
    (row,) = store.read(pools.all_runners)
    assert (row.runner_key, row.token, row.settings, row.retired_at) == (RUNNER, "new", {"limit": 3}, None)
    store.write(lambda tx: pools.retire_runner(tx, RUNNER))
    (row,) = store.read(pools.all_runners)
    assert row.retired_at is not None


def test_law_2_an_intent_is_open_with_its_parameters_until_it_is_answered(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_pool(tx)
        pools.add_request(
            tx, request_id="r", pool="linux", placement="a", count=3, parameters={"zone": "z"}, reason="demand"
        )

    store.write(work)
    (found,) = store.read(lambda tx: pools.open_requests(tx, ["linux"]))
    assert (found.request_id, found.count, found.parameters, found.attempts) == ("r", 3, {"zone": "z"}, 0)
    assert store.read(lambda tx: pools.open_requests(tx, ["other"])) == []
    assert store.read(lambda tx: pools.open_requests(tx, [])) == []
    store.write(lambda tx: pools.retry_request(tx, "r", due_at=tx.now + timedelta(hours=1), error="no answer"))
    assert store.read(lambda tx: pools.open_requests(tx, ["linux"])) == [], "it is not due yet"
    store.write(lambda tx: pools.retry_request(tx, "r", due_at=tx.now, error="no answer"))
    (found,) = store.read(lambda tx: pools.open_requests(tx, ["linux"]))
    assert (found.attempts, found.parameters) == (2, {"zone": "z"})
    store.write(lambda tx: pools.close_request(tx, "r", "filled", "all were made"))
    store.write(lambda tx: pools.close_request(tx, "r", "failed", "too late"))
    assert store.read(lambda tx: pools.open_requests(tx, ["linux"])) == []
    told = [line.stimulus for line in store.read(lambda tx: journal.story_of(tx.sql, "r"))]
    assert told == ["intended", "filled"]


def test_an_instance_walks_its_life_with_a_deadline_in_each_waiting_state(store: Store) -> None:
    store.write(add_pool)
    instance = InstanceId(store.write(lambda tx: add_instance(tx, state=InstanceState.REQUESTED)))
    for state in ("creating", "booting", "preparing", "ready", "draining"):
        new = InstanceState(state)
        assert store.write(lambda tx, new=new: instances.move(tx, instance, new, stimulus="s", reason="r"))  # type: ignore[misc]
        found = store.read(lambda tx: instances.instance(tx, instance))
        assert found is not None
        assert found.state is new
        seconds = INSTANCE_DEADLINES_S.get(new)
        assert found.state_by == (None if seconds is None else found.state_at + timedelta(seconds=seconds))
    store.write(lambda tx: instances.remove(tx, instance, stimulus="s", reason="idle for 10 min"))
    assert store.write(lambda tx: instances.move(tx, instance, InstanceState.GONE, stimulus="s", reason="r"))
    row = store.read(lambda tx: tx.sql.execute(sa.select(instance_rows)).one())
    assert row.gone_at is not None
    assert row.end_reason == "idle for 10 min"
    told = [line.more["new"] for line in store.read(lambda tx: journal.story_of(tx.sql, instance))]
    assert told == ["requested", "creating", "booting", "preparing", "ready", "draining", "deleting", "gone"]


def test_law_5_an_instance_moves_from_the_expected_state_only(store: Store) -> None:
    store.write(add_pool)
    instance = store.write(add_instance)
    move = partial(instances.move, instance_id=instance, stimulus="s", reason="r")
    assert store.write(lambda tx: move(tx, new=InstanceState.READY, only_from=[InstanceState.PREPARING])) is False
    with pytest.raises(IllegalTransition):
        store.write(lambda tx: move(tx, new=InstanceState.CREATING))
    assert store.write(lambda tx: instances.move(tx, "nobody", InstanceState.READY, stimulus="s", reason="r")) is False


def test_an_instance_shows_what_is_known_of_its_machine(store: Store) -> None:
    def work(tx: Tx) -> InstanceId:
        add_pool(tx)
        instance = InstanceId(add_instance(tx, machine_id="vm-1", address='{"host": "h"}', host_keys='["k"]'))
        instances.update(tx, instance, facts='{"docker": true}', missed_listings=1)
        granted(tx, instance)
        instances.blame(tx, instance, "bad disk")
        instances.blame(tx, instance, "bad network")
        return instance

    instance = store.write(work)
    found = store.read(lambda tx: instances.instance(tx, instance))
    assert found is not None
    assert (found.machine_id, found.address, found.host_keys) == ("vm-1", {"host": "h"}, ("k",))
    assert (found.facts, found.missed_listings, found.leases) == ({"docker": True}, 1, 1)
    assert found.unhealthy == "bad disk", "the first blame stands"
    listed = store.read(lambda tx: instances.instances_in(tx, ["linux"], [InstanceState.READY]))
    assert listed == [found]
    assert store.read(lambda tx: instances.instances_in(tx, ["linux"], [InstanceState.BOOTING])) == []
    assert store.read(lambda tx: instances.instance(tx, InstanceId("nobody"))) is None


def test_a_scope_that_failed_is_remembered_until_a_success_in_it(store: Store) -> None:
    cooled = store.write(
        lambda tx: CoolDown(scope="zone:1", until=tx.now + timedelta(minutes=5), failures=2, reason="stock-out")
    )
    store.write(lambda tx: snapshots.remember_cool_down(tx, cooled))
    assert store.read(snapshots.running_cool_downs) == (cooled,)
    store.write(lambda tx: snapshots.forget_cool_downs(tx, ("zone:1", "account:1")))
    assert store.read(lambda tx: snapshots.cool_down(tx, "zone:1")) == cooled, "that success began before the failure"
    store.write(lambda tx: snapshots.remember_cool_down(tx, replace(cooled, until=tx.now)))
    store.write(lambda tx: snapshots.forget_cool_downs(tx, ("zone:1", "account:1")))
    assert store.read(lambda tx: snapshots.cool_down(tx, "zone:1")) is None


def test_a_cool_down_that_has_passed_no_longer_stops_but_is_remembered(store: Store) -> None:
    cooled = store.write(lambda tx: CoolDown(scope="z", until=tx.now, failures=3, reason="r"))
    store.write(lambda tx: snapshots.remember_cool_down(tx, cooled))
    assert store.read(snapshots.running_cool_downs) == ()
    assert store.read(lambda tx: snapshots.cool_down(tx, "z")) == cooled


def test_pools_that_hit_one_scope_at_once_all_remember_it(managers: tuple[Store, ...]) -> None:
    def hit(tx: Tx, failures: int) -> None:
        cooled = CoolDown(scope="account:1", until=tx.now + timedelta(60), failures=failures, reason="quota")
        snapshots.remember_cool_down(tx, cooled)

    works = [partial(managers[n % len(managers)].write, partial(hit, failures=n)) for n in range(8)]
    assert at_once(works) == [None] * 8
    assert len(managers[0].read(snapshots.running_cool_downs)) == 1


def test_planning_sees_everything_of_its_own_pool_and_nothing_of_others(store: Store) -> None:
    limits = PoolLimits(name=PoolName("linux"), throttle=Throttle(per_s=1, burst=10))

    def work(tx: Tx) -> dict[str, str]:
        add_pool(tx, ask_limit=2)
        add_pool(tx, "other", ask_limit=2)
        for pool in ("linux", "other"):
            leases.ask(tx, reservation_id=fresh("a"), pool=pool, runner_key=RUNNER, manager_id="m-1")
        used, other = add_instance(tx), add_instance(tx, pool="other")
        granted(tx, used, slot=1)
        granted(tx, other, add_job(tx, pool="other"))
        boots = add_instance(tx, state=InstanceState.BOOTING)
        add_instance(tx, state=InstanceState.GONE)
        add_job(tx, "stopped")
        tx.sql.execute(sa.update(job_rows).where(job_rows.c.job_key == "stopped").values(stop="cancel"))
        waits = add_job(tx)
        tx.sql.execute(sa.update(job_rows).where(job_rows.c.job_key == waits).values(avoid=f'["{boots}"]'))
        add_job(tx, waiting=False)
        snapshots.remember_cool_down(tx, CoolDown(scope="z", until=tx.now + timedelta(60), failures=1, reason="r"))
        return {"used": used, "boots": boots, "waits": waits}

    names = store.write(work)
    seen = store.write(lambda tx: snapshots.pool_snapshot(tx, limits, now=tx.now))
    assert seen is not None
    assert {view.instance_id: view.used_slots for view in seen.instances} == {names["used"]: (1,), names["boots"]: ()}
    assert [(job.job, job.avoid) for job in seen.waiting] == [(names["waits"], frozenset({names["boots"]}))]
    assert seen.asking == 1
    assert [cooled.scope for cooled in seen.cool_downs] == ["z"]
    unknown = PoolLimits(name=PoolName("nowhere"))
    assert store.write(lambda tx: snapshots.pool_snapshot(tx, unknown, now=tx.now)) is None
