"""Capacity first: a poll holds a reservation, and a pool never has more of them than planning allowed (law 3)."""

from __future__ import annotations

import sqlalchemy as sa

from fleet.store import leases, pools
from fleet.store.database import Store, Tx
from fleet.store.tables import pools as pool_rows
from fleet.store.tables import reservations
from tests.contract.store.world import RUNNER, add_job, add_pool, at_once, fresh


def ask(tx: Tx, pool: str = "linux", manager: str = "m-1", reservation_id: str | None = None) -> str | None:
    reservation_id = reservation_id or fresh("a")
    asked = leases.ask(tx, reservation_id=reservation_id, pool=pool, runner_key=RUNNER, manager_id=manager)
    return reservation_id if asked else None


def count(store: Store, state: str) -> int:
    query = sa.select(sa.func.count()).select_from(reservations).where(reservations.c.state == state)
    return int(store.read(lambda tx: tx.sql.execute(query).scalar_one()))


def ask_limit(store: Store) -> int:
    return int(store.read(lambda tx: tx.sql.execute(sa.select(pool_rows.c.ask_limit)).scalar_one()))


def test_law_3_sixteen_threads_never_hold_more_polls_than_the_pool_allows(managers: tuple[Store, ...]) -> None:
    managers[0].write(lambda tx: add_pool(tx, ask_limit=5))

    def poll(number: int) -> int:
        store, most = managers[number % len(managers)], 0
        for _ in range(12):
            mine = store.write(ask)
            most = max(most, count(store, "asking"))
            if mine is not None:
                store.write(lambda tx, mine=mine: leases.give_back(tx, mine))
        return most

    done = at_once([lambda n=n: poll(n) for n in range(16)])  # type: ignore[misc]
    assert not [each for each in done if isinstance(each, Exception)]
    assert max(done) <= 5  # type: ignore[type-var]
    assert count(managers[0], "asking") == 0, "every exit path gives its reservation back"


def test_law_3_all_at_once_exactly_as_many_are_let_through_as_may_ask(managers: tuple[Store, ...]) -> None:
    managers[0].write(lambda tx: add_pool(tx, ask_limit=5))
    done = at_once([lambda n=n: managers[n % len(managers)].write(ask) for n in range(16)])  # type: ignore[misc]
    assert len([each for each in done if isinstance(each, str)]) == 5
    assert count(managers[0], "asking") == 5


def test_a_pool_that_is_unknown_or_retired_is_not_asked_for(store: Store) -> None:
    assert store.write(lambda tx: ask(tx, "nowhere")) is None
    store.write(lambda tx: add_pool(tx, ask_limit=5))
    store.write(lambda tx: pools.retire_pool(tx, "linux"))
    store.write(lambda tx: tx.sql.execute(sa.update(pool_rows).values(ask_limit=5)))
    assert store.write(ask) is None


def test_giving_back_twice_is_fine(store: Store) -> None:
    store.write(lambda tx: add_pool(tx, ask_limit=1))
    mine = store.write(ask)
    assert mine is not None
    store.write(lambda tx: leases.give_back(tx, mine))
    store.write(lambda tx: leases.give_back(tx, mine))
    assert store.write(ask) is not None


def test_a_poll_that_brought_a_job_becomes_a_debt_and_lowers_what_may_be_asked(store: Store) -> None:
    store.write(lambda tx: add_pool(tx, ask_limit=2))
    mine = store.write(ask)
    assert mine is not None

    def brought(tx: Tx) -> None:
        job = add_job(tx)
        leases.owe(tx, mine, pool="linux", runner_key=RUNNER, manager_id="m-1", job_key=job)

    store.write(brought)
    assert (count(store, "asking"), count(store, "owed"), ask_limit(store)) == (0, 1, 1)


def test_a_job_that_came_after_its_reservation_was_taken_away_is_owed_all_the_same(store: Store) -> None:
    store.write(lambda tx: add_pool(tx, ask_limit=0))
    store.write(lambda tx: leases.owe(tx, "gone", pool="linux", runner_key=RUNNER, manager_id="m-1", job_key="j"))
    assert (count(store, "owed"), ask_limit(store)) == (1, 0)


def test_the_debt_ends_with_the_demand(store: Store) -> None:
    store.write(lambda tx: add_pool(tx, ask_limit=1))
    store.write(lambda tx: leases.owe(tx, "r", pool="linux", runner_key=RUNNER, manager_id="m-1", job_key="j"))
    store.write(lambda tx: leases.forget_demand(tx, "j"))
    assert count(store, "owed") == 0


def test_what_a_renamed_pool_was_asked_for_and_owes_goes_on_under_its_new_name(store: Store) -> None:
    store.write(lambda tx: add_pool(tx, ask_limit=2))
    store.write(ask)
    store.write(lambda tx: leases.owe(tx, "r", pool="linux", runner_key=RUNNER, manager_id="m-1", job_key="j"))
    store.write(lambda tx: pools.rename_pool(tx, "linux", "debian"))
    found = store.read(lambda tx: tx.sql.execute(sa.select(reservations.c.pool)).scalars().all())
    assert found == ["debian", "debian"]
