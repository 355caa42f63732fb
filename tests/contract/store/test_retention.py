"""No table grows without limit, and nothing that is open is forgotten (law 10)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
import sqlalchemy as sa

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.model.policy import CoolDown
from fleet.store import instances, jobs, leases, managers, pools, snapshots
from fleet.store.database import Store, Tx
from fleet.store.retention import Pruned, prune
from fleet.store.tables import metadata
from tests.contract.store.world import RUNNER, add_instance, add_job, add_pool, add_runner, begin, granted

LATER = timedelta(days=1)  # everything a test makes is older than this, seen from tomorrow


def prune_all(tx: Tx, *, journal: bool = True, limit: int = 500) -> Pruned:
    """Forget whatever may be forgotten, however young."""
    then = tx.now + LATER
    return prune(
        tx, journal_before=then if journal else tx.now - LATER, finished_before=then, gone_before=then, limit=limit
    )


def counts(store: Store) -> Mapping[str, int]:
    """Rows of each table that has any, the identity and the journal aside."""
    seen = {
        name: store.read(lambda tx, t=table: tx.sql.execute(sa.select(sa.func.count()).select_from(t)).scalar_one())  # type: ignore[misc]
        for name, table in metadata.tables.items()
        if name not in {"journal", "stores"}
    }
    return {name: number for name, number in seen.items() if number}


def run_to_its_end(tx: Tx, job: str, lease: str) -> None:
    for state in (LeaseState.RUNNING, LeaseState.CLEANING, LeaseState.RELEASED):
        leases.move_lease(tx, lease, state, stimulus="s", reason="r")
    for state in (JobState.RUNNING, JobState.FINISHING, JobState.FINISHED):
        assert jobs.move_job(tx, job, 1, state, stimulus="s", reason="r")


def whole_life(tx: Tx) -> None:
    """A fleet that came, ran a job, and went."""
    begin(tx, ttl=timedelta(seconds=-1))
    add_pool(tx)
    add_runner(tx)
    pools.add_request(tx, request_id="r-1", pool="linux", placement="a", count=1, parameters={}, reason="demand")
    pools.close_request(tx, "r-1", "filled", "made")
    instance, job = add_instance(tx, request_id="r-1"), add_job(tx)
    run_to_its_end(tx, job, granted(tx, instance, job))
    instances.remove(tx, instance, stimulus="idle", reason="idle")
    instances.move(tx, instance, InstanceState.GONE, stimulus="absent", reason="gone")
    pools.retire_runner(tx, RUNNER)
    pools.retire_pool(tx, "linux")
    snapshots.remember_cool_down(tx, CoolDown(scope="z", until=tx.now, failures=1, reason="r"))


def test_law_10_whatever_is_over_is_forgotten(store: Store) -> None:
    store.write(whole_life)
    done = store.write(prune_all)
    assert counts(store) == {}
    assert done.journal > 10
    assert (done.jobs, done.leases, done.instances, done.requests, done.runners, done.pools, done.managers) == (1,) * 7
    assert done.cool_downs == 1
    assert store.write(prune_all).total == 0


def open_world(tx: Tx) -> None:
    """One thing of every open kind, and around each something that has ended and is still needed."""
    begin(tx)
    add_pool(tx, ask_limit=5)
    add_runner(tx)
    managers.claim_pools(tx, ManagerId("m-1"))
    pools.add_request(tx, request_id="open", pool="linux", placement="a", count=1, parameters={}, reason="demand")
    pools.add_request(tx, request_id="done", pool="linux", placement="a", count=1, parameters={}, reason="demand")
    pools.close_request(tx, "done", "filled", "made")
    failed = add_instance(tx, request_id="open", state=InstanceState.REQUESTED)
    instances.remove(tx, failed, stimulus="s", reason="r")
    instances.move(tx, failed, InstanceState.GONE, stimulus="s", reason="r")
    for state in InstanceState:
        if state is not InstanceState.GONE:
            add_instance(tx, request_id="done", state=state)
    add_job(tx, waiting=False)
    add_job(tx)
    held = add_instance(tx, request_id="done")
    granted(tx, held)
    cleaned = add_job(tx)
    leases.move_lease(tx, granted(tx, held, cleaned, slot=1), LeaseState.CLEANING, stimulus="s", reason="r")
    jobs.move_job(tx, cleaned, 1, JobState.ABANDONED, stimulus="s", reason="r")
    assert leases.ask(tx, reservation_id="poll", pool="linux", runner_key=RUNNER, manager_id="m-1")
    leases.owe(tx, "debt", pool="linux", runner_key=RUNNER, manager_id="m-1", job_key="j-owed")
    snapshots.remember_cool_down(tx, CoolDown(scope="z", until=tx.now + 2 * LATER, failures=1, reason="r"))


def test_law_10_nothing_that_is_open_is_ever_forgotten(store: Store) -> None:
    store.write(open_world)
    before = counts(store)
    for _ in range(3):
        done = store.write(prune_all)
        assert done.total == done.journal
    assert counts(store) == before


def test_law_10_what_is_retired_stays_while_anything_of_it_is_left(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        begin(tx, ttl=timedelta(seconds=-1))
        add_pool(tx)
        add_runner(tx)
        job, instance = add_job(tx), add_instance(tx)
        lease = granted(tx, instance, job)
        pools.retire_pool(tx, "linux")
        pools.retire_runner(tx, RUNNER)
        return job, lease

    job, lease = store.write(work)
    before = counts(store)
    store.write(prune_all)
    assert counts(store) == before
    store.write(lambda tx: run_to_its_end(tx, job, lease))
    store.write(prune_all)
    assert counts(store) == {"pools": 1, "instances": 1}


def test_what_is_young_stays(store: Store) -> None:
    store.write(whole_life)
    before = counts(store)
    done = store.write(
        lambda tx: prune(tx, journal_before=tx.now - LATER, finished_before=tx.now - LATER, gone_before=tx.now - LATER)
    )
    assert done == Pruned()
    assert counts(store) == before


def test_an_instance_stays_as_long_as_the_leases_of_its_jobs(store: Store) -> None:
    store.write(whole_life)
    done = store.write(
        lambda tx: prune(tx, journal_before=tx.now - LATER, finished_before=tx.now - LATER, gone_before=tx.now + LATER)
    )
    assert (done.jobs, done.instances) == (0, 0)


def test_one_call_forgets_a_bounded_number(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_pool(tx)
        for _ in range(7):
            jobs.move_job(tx, add_job(tx), 1, JobState.ABANDONED, stimulus="s", reason="r")
            add_instance(tx, state=InstanceState.GONE)

    store.write(work)
    seen = []
    while (done := store.write(lambda tx: prune_all(tx, limit=3))).total:
        seen.append(done)
    assert [(done.jobs, done.instances) for done in seen[:4]] == [(3, 3), (3, 3), (1, 1), (0, 0)]
    assert max(done.journal for done in seen) == 3


def test_the_newest_journal_line_stays_and_numbers_go_on_from_it(store: Store) -> None:
    def lines(tx: Tx) -> list[int]:
        return list(tx.sql.execute(sa.select(metadata.tables["journal"].c.seq)).scalars())

    store.write(lambda tx: [tx.journal("pool", "p", f"s{n}", "r") for n in range(5)])
    before = store.read(lines)
    store.write(prune_all)
    assert store.read(lines) == [max(before)]
    store.write(lambda tx: tx.journal("pool", "p", "next", "r"))
    assert max(store.read(lines)) > max(before)


@pytest.mark.parametrize("old", [0, 3, 5])
def test_journal_lines_go_from_the_oldest_on_up_to_the_first_young_one(store: Store, old: int) -> None:
    journal = metadata.tables["journal"]

    def write(tx: Tx) -> None:
        ages = [LATER if n < old else timedelta(0) for n in range(5)] + [LATER, timedelta(0)]
        line = {"kind": "pool", "object_id": "p", "stimulus": "s", "reason": "r"}
        tx.sql.execute(sa.insert(journal), [{**line, "at": tx.now - age} for age in ages])

    store.write(write)
    then = LATER / 2
    done = store.write(lambda tx: prune(tx, journal_before=tx.now - then, finished_before=tx.now, gone_before=tx.now))
    expected = {0: 0, 3: 3, 5: 6}[old]
    assert done.journal == expected


def test_a_pool_that_is_named_again_is_not_forgotten(store: Store) -> None:
    store.write(add_pool)
    store.write(lambda tx: pools.retire_pool(tx, "linux"))
    store.write(add_pool)
    store.write(prune_all)
    assert counts(store) == {"pools": 1}
