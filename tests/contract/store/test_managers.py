"""One owner at a time: claims end by the store's clock, and who comes late changes nothing (law 5)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import sqlalchemy as sa

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import JobState, LeaseState
from fleet.store import jobs, journal, leases, managers
from fleet.store.database import Store, Tx
from fleet.store.tables import jobs as job_rows
from fleet.store.tables import managers as manager_rows
from fleet.store.tables import pools as pool_rows
from fleet.store.tables import reservations
from fleet.store.tables import stores as store_rows
from tests.contract.store.world import RUNNER, TTL, add_instance, add_job, add_pool, at_once, begin, granted

ONE, TWO = ManagerId("m-1"), ManagerId("m-2")
OVER = timedelta(seconds=-1)


def job_claim(store: Store, key: str) -> tuple[str, int]:
    query = sa.select(job_rows.c.owner, job_rows.c.epoch).where(job_rows.c.job_key == key)
    owner, epoch = store.read(lambda tx: tx.sql.execute(query).one())
    return owner, epoch


def test_the_first_manager_names_the_store_and_the_next_finds_the_name(store: Store) -> None:
    assert store.write(lambda tx: managers.store_identity(tx, "first")) == "first"
    assert store.write(lambda tx: managers.store_identity(tx, "second")) == "first"
    assert store.read(managers.may_sweep) == (True, None)


def test_managers_that_start_together_on_an_empty_database_come_to_one_identity(
    managers: tuple[Store, ...],
) -> None:
    from fleet.store.managers import store_identity  # noqa: PLC0415  the fixture has the module's name

    names = at_once(
        [partial(managers[n % len(managers)].write, lambda tx, n=n: store_identity(tx, f"s-{n}")) for n in range(8)]
    )
    assert len(set(names)) == 1
    assert managers[0].read(lambda tx: tx.sql.execute(sa.select(sa.func.count()).select_from(store_rows)).scalar()) == 1


def test_sweeping_is_switched_with_its_reason(store: Store) -> None:
    store.write(lambda tx: managers.store_identity(tx, "s"))
    store.write(lambda tx: managers.set_sweeping(tx, False, "restored from a backup"))
    assert store.read(managers.may_sweep) == (False, "restored from a backup")
    store.write(lambda tx: managers.set_sweeping(tx, True, "a person confirmed"))
    assert store.read(managers.may_sweep) == (True, None)
    assert [line.more["new"] for line in store.read(lambda tx: journal.story_of(tx.sql, "sweeping"))] == ["off", "on"]


def test_a_heartbeat_renews_while_the_claim_holds(store: Store) -> None:
    store.write(begin)
    assert store.write(lambda tx: managers.heartbeat(tx, ONE, "s-1", TTL)) is True


def test_a_heartbeat_after_the_end_of_the_claim_says_that_nothing_may_be_trusted(store: Store) -> None:
    store.write(lambda tx: begin(tx, ttl=OVER))
    assert store.write(lambda tx: managers.heartbeat(tx, ONE, "s-1", TTL)) is False
    assert store.write(lambda tx: managers.heartbeat(tx, ONE, "s-1", TTL)) is False, "it does not come back to life"


def test_a_heartbeat_of_an_earlier_session_fails(store: Store) -> None:
    store.write(begin)
    store.write(lambda tx: begin(tx, session="s-2"))
    assert store.write(lambda tx: managers.heartbeat(tx, ONE, "s-1", TTL)) is False
    assert store.write(lambda tx: managers.heartbeat(tx, ONE, "s-2", TTL)) is True


def test_a_new_session_raises_the_epoch_of_all_that_it_finds_its_own(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        begin(tx)
        add_pool(tx)
        managers.claim_pools(tx, ONE)
        ended = add_job(tx)
        jobs.move_job(tx, ended, 1, JobState.ABANDONED, stimulus="s", reason="r")
        return add_job(tx), ended

    mine, ended = store.write(work)
    store.write(lambda tx: begin(tx, session="s-2"))
    assert job_claim(store, mine) == ("m-1", 2)
    assert job_claim(store, ended) == ("m-1", 1)
    assert store.write(lambda tx: managers.claim_pools(tx, ONE)) == {"linux": 2}


def test_a_new_session_gives_back_the_polls_of_the_last_but_not_its_debts(store: Store) -> None:
    def work(tx: Tx) -> None:
        begin(tx)
        add_pool(tx, ask_limit=3)
        for name in ("poll", "job"):
            assert leases.ask(tx, reservation_id=name, pool="linux", runner_key=RUNNER, manager_id=ONE)
        leases.owe(tx, "job", pool="linux", runner_key=RUNNER, manager_id=ONE, job_key="j")

    store.write(work)
    store.write(lambda tx: begin(tx, session="s-2"))
    left = store.read(lambda tx: tx.sql.execute(sa.select(reservations.c.reservation_id)).scalars().all())
    assert left == ["job"]


def test_ending_a_session_lets_its_claims_run_out_at_once(store: Store) -> None:
    store.write(begin)
    key = store.write(add_job)
    store.write(lambda tx: managers.end_session(tx, ONE, "s-1", "a person stopped it"))
    store.write(lambda tx: begin(tx, "m-2"))
    assert store.write(lambda tx: managers.take_over_jobs(tx, TWO)) == [key]


def test_a_second_manager_takes_over_what_the_dead_owned_under_a_new_epoch(store: Store) -> None:
    def work(tx: Tx) -> str:
        begin(tx, ttl=OVER)
        begin(tx, "m-2")
        add_pool(tx, ask_limit=1)
        assert leases.ask(tx, reservation_id="poll", pool="linux", runner_key=RUNNER, manager_id=ONE)
        return add_job(tx)

    key = store.write(work)
    assert store.write(lambda tx: managers.take_over_jobs(tx, TWO)) == [key]
    assert job_claim(store, key) == ("m-2", 2)
    assert store.write(lambda tx: managers.take_over_jobs(tx, TWO)) == []
    assert store.read(lambda tx: tx.sql.execute(sa.select(reservations)).all()) == []
    assert store.read(lambda tx: journal.story_of(tx.sql, key))[-1].stimulus == "taken_over"


def test_nothing_is_taken_from_the_living(store: Store) -> None:
    def work(tx: Tx) -> str:
        begin(tx)
        begin(tx, "m-2")
        add_pool(tx)
        assert managers.claim_pools(tx, ONE) == {"linux": 1}
        return add_job(tx)

    key = store.write(work)
    assert store.write(lambda tx: managers.take_over_jobs(tx, TWO)) == []
    assert store.write(lambda tx: managers.claim_pools(tx, TWO)) == {}
    assert job_claim(store, key) == ("m-1", 1)


def test_a_job_that_has_ended_is_taken_over_as_long_as_its_machine_is_not_clean(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        begin(tx, ttl=OVER)
        begin(tx, "m-2")
        add_pool(tx)
        key = add_job(tx)
        lease = granted(tx, add_instance(tx), key)
        leases.move_lease(tx, lease, LeaseState.CLEANING, stimulus="s", reason="r")
        jobs.move_job(tx, key, 1, JobState.ABANDONED, stimulus="s", reason="r")
        return key, lease

    key, lease = store.write(work)
    assert store.write(lambda tx: managers.take_over_jobs(tx, TWO)) == [key]
    (found,) = store.read(lambda tx: leases.cleaning_leases(tx, TWO))
    assert (found.lease_id, found.epoch) == (lease, 2)
    store.write(lambda tx: begin(tx, "m-2", session="s-2"))
    (found,) = store.read(lambda tx: leases.cleaning_leases(tx, TWO))
    assert found.epoch == 3, "a late command of the earlier session is refused by the agent"


def test_managers_that_claim_at_once_leave_each_pool_and_job_one_owner(managers: tuple[Store, ...]) -> None:
    from fleet.store.managers import claim_pools, take_over_jobs  # noqa: PLC0415  the fixture has the module's name

    names = [ManagerId(f"m-{n}") for n in range(8)]

    def prepare(tx: Tx) -> None:
        for name in names:
            begin(tx, name)
        for pool in range(12):
            add_pool(tx, f"p-{pool}")
            add_job(tx, pool=f"p-{pool}", owner="dead")

    managers[0].write(prepare)
    taken = at_once(
        [partial(managers[n % len(managers)].write, lambda tx, n=n: claim_pools(tx, names[n])) for n in range(8)]
    )
    owned = [pool for each in taken for pool in each]  # type: ignore[union-attr]
    assert sorted(owned) == sorted(f"p-{n}" for n in range(12))
    assert {epoch for each in taken for epoch in each.values()} == {1}  # type: ignore[union-attr]
    took = at_once(
        [partial(managers[n % len(managers)].write, lambda tx, n=n: take_over_jobs(tx, names[n])) for n in range(8)]
    )
    assert len([key for each in took for key in each]) == 12  # type: ignore[union-attr]
    epochs = managers[0].read(lambda tx: tx.sql.execute(sa.select(job_rows.c.epoch)).scalars().all())
    assert set(epochs) == {2}


def test_law_5_a_claim_on_a_pool_holds_for_its_owner_and_epoch_only(store: Store) -> None:
    def work(tx: Tx) -> None:
        begin(tx, ttl=OVER)
        add_pool(tx)
        managers.claim_pools(tx, ONE)

    store.write(work)
    assert store.write(lambda tx: managers.holds_pool(tx, "linux", ONE, 1)) is True
    store.write(lambda tx: begin(tx, "m-2"))
    assert store.write(lambda tx: managers.claim_pools(tx, TWO)) == {"linux": 2}
    assert store.write(lambda tx: managers.holds_pool(tx, "linux", ONE, 1)) is False
    assert store.write(lambda tx: managers.holds_pool(tx, "linux", TWO, 1)) is False
    assert store.write(lambda tx: managers.holds_pool(tx, "linux", TWO, 2)) is True
    assert store.write(lambda tx: managers.holds_pool(tx, "nowhere", TWO, 2)) is False


def test_law_5_claims_go_by_the_stores_clock_and_not_by_the_managers(store: Store) -> None:
    store.write(begin)
    store.write(lambda tx: begin(tx, "m-2"))
    store.write(add_pool)
    store.write(lambda tx: managers.claim_pools(tx, ONE))
    now, until = store.read(
        lambda tx: (
            tx.now,
            tx.sql.execute(sa.select(manager_rows.c.alive_until).where(manager_rows.c.manager_id == ONE)).scalar_one(),
        )
    )
    assert timedelta(0) < until - now <= TTL
    assert store.read(lambda tx: tx.sql.execute(sa.select(pool_rows.c.owner)).scalar_one()) == ONE
