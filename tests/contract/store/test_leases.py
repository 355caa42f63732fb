"""A slot is held by one job, a job by one machine, and no leased machine is ever removed, whoever races whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

import pytest
import sqlalchemy as sa

from fleet.model.job import Lease
from fleet.model.lifecycle import ACTIVE_LEASE, IllegalTransition, InstanceState, JobState, LeaseState
from fleet.store import instances, jobs, leases
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreConflict
from fleet.store.tables import instances as instance_rows
from fleet.store.tables import leases as lease_rows
from tests.contract.store.world import add_instance, add_job, add_pool, at_once, fresh, granted

ACTIVE = [state.value for state in ACTIVE_LEASE]


def grant(tx: Tx, job_key: str, instance_id: str, slot: int = 0) -> Lease | None:
    return leases.grant(tx, lease_id=fresh("l"), job_key=job_key, instance_id=instance_id, slot=slot)


def active(store: Store) -> list[sa.Row[tuple[object, ...]]]:
    query = sa.select(lease_rows).where(lease_rows.c.state.in_(ACTIVE))
    return list(store.read(lambda tx: tx.sql.execute(query).all()))


def column(store: Store, instance_id: str, name: str) -> object:
    query = sa.select(instance_rows.c[name]).where(instance_rows.c.instance_id == instance_id)
    return store.read(lambda tx: tx.sql.execute(query).scalar_one())


def end(tx: Tx, lease_id: str) -> None:
    """From granted to released, as a job that came to its end."""
    for state in (LeaseState.RUNNING, LeaseState.CLEANING, LeaseState.RELEASED):
        assert leases.move_lease(tx, lease_id, state, stimulus="test", reason="test")


def test_a_grant_takes_the_slot_and_ends_the_debt(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, Lease | None]:
        add_pool(tx)
        instance, job = add_instance(tx), add_job(tx)
        leases.owe(tx, "r", pool="linux", runner_key="k", manager_id="m-1", job_key=job)
        return instance, grant(tx, job, instance, 2)

    instance, lease = store.write(work)
    assert lease is not None
    assert (lease.instance, lease.slot, lease.concurrent_id, lease.project_concurrent_id) == (instance, 2, 0, 0)
    assert column(store, instance, "use_count") == 1
    assert column(store, instance, "idle_since") is None
    assert store.read(lambda tx: leases.leases_of(tx, instance)) == [lease]
    assert store.read(lambda tx: leases.lease(tx, lease.lease_id)) == lease


@pytest.mark.parametrize("slots", [1, 4])
def test_many_threads_that_want_the_same_slot_leave_one_holder(managers: tuple[Store, ...], slots: int) -> None:
    def prepare(tx: Tx) -> tuple[str, list[str]]:
        add_pool(tx)
        return add_instance(tx), [add_job(tx) for _ in range(12)]

    instance, waiting = managers[0].write(prepare)

    def take(number: int) -> Callable[[], Lease | None]:
        return lambda: managers[number % len(managers)].write(
            lambda tx: grant(tx, waiting[number], instance, number % slots)
        )

    done = at_once([take(number) for number in range(12)])
    won = [each for each in done if isinstance(each, Lease)]
    assert sorted(lease.slot for lease in won) == list(range(slots))
    assert all(isinstance(each, StoreConflict) for each in done if not isinstance(each, Lease))
    assert column(managers[0], instance, "use_count") == slots, "who lost the race has used nothing"


def test_many_threads_that_want_the_same_job_give_it_one_machine(managers: tuple[Store, ...]) -> None:
    def prepare(tx: Tx) -> tuple[list[str], str]:
        add_pool(tx)
        return [add_instance(tx) for _ in range(12)], add_job(tx)

    machines, job = managers[0].write(prepare)

    def take(number: int) -> Callable[[], Lease | None]:
        return lambda: managers[number % len(managers)].write(lambda tx: grant(tx, job, machines[number]))

    done = at_once([take(number) for number in range(12)])
    assert len([each for each in done if isinstance(each, Lease)]) == 1
    assert len(active(managers[0])) == 1


def test_concurrent_ids_are_unique_and_the_smallest_free_whoever_grants(managers: tuple[Store, ...]) -> None:
    def prepare(tx: Tx) -> tuple[list[str], list[str]]:
        add_pool(tx)
        return [add_instance(tx) for _ in range(16)], [add_job(tx, project_id=n % 3) for n in range(16)]

    machines, waiting = managers[0].write(prepare)

    def take(n: int) -> Callable[[], Lease | None]:
        return lambda: managers[n % len(managers)].write(lambda tx: grant(tx, waiting[n], machines[n]))

    done = at_once([take(n) for n in range(16)])
    assert [each for each in done if not isinstance(each, Lease)] == []
    rows = active(managers[0])
    assert sorted(row.concurrent_id for row in rows) == list(range(16))
    for project, many in ((0, 6), (1, 5), (2, 5)):
        numbers = sorted(row.project_concurrent_id for row in rows if row.project_id == project)
        assert numbers == list(range(many))


def test_a_concurrent_id_is_free_again_when_its_lease_has_ended(store: Store) -> None:
    def work(tx: Tx) -> Lease | None:
        add_pool(tx)
        first, *_ = [granted(tx, add_instance(tx)) for _ in range(3)]
        end(tx, first)
        return grant(tx, add_job(tx), add_instance(tx))

    lease = store.write(work)
    assert lease is not None
    assert (lease.concurrent_id, lease.project_concurrent_id) == (0, 0)


def test_runners_count_on_their_own(store: Store) -> None:
    def work(tx: Tx) -> list[int]:
        add_pool(tx)
        found = [grant(tx, add_job(tx, runner=runner), add_instance(tx)) for runner in ("one", "two")]
        return [lease.concurrent_id for lease in found if lease]

    assert store.write(work) == [0, 0]


@pytest.mark.parametrize("state", [state for state in InstanceState if state is not InstanceState.READY])
def test_only_a_ready_instance_is_granted(store: Store, state: InstanceState) -> None:
    store.write(add_pool)
    assert store.write(lambda tx: grant(tx, add_job(tx), add_instance(tx, state=state))) is None
    assert active(store) == []


def test_an_instance_that_was_blamed_is_granted_no_more(store: Store) -> None:
    def work(tx: Tx) -> Lease | None:
        add_pool(tx)
        instance = add_instance(tx)
        instances.blame(tx, instance, "docker does not answer")
        return grant(tx, add_job(tx), instance)

    assert store.write(work) is None


def test_a_grant_that_comes_to_nothing_leaves_the_instance_idle_and_unused(store: Store) -> None:
    def work(tx: Tx) -> str:
        add_pool(tx)
        instance = add_instance(tx)
        assert grant(tx, add_job(tx, waiting=False), instance) is None
        assert grant(tx, "no such job", instance) is None
        return instance

    instance = store.write(work)
    assert column(store, instance, "use_count") == 0
    assert column(store, instance, "idle_since") is not None, "else it would never be removed for idleness"


def test_a_job_that_is_cancelled_while_it_is_granted_holds_no_machine(managers: tuple[Store, ...]) -> None:
    def prepare(tx: Tx) -> list[tuple[str, str]]:
        add_pool(tx)
        return [(add_job(tx), add_instance(tx)) for _ in range(20)]

    def cancel(job: str) -> bool:
        return managers[0].write(
            lambda tx: jobs.move_job(
                tx, job, 1, JobState.FINISHING, stimulus="cancel", reason="r", only_from=[JobState.WAITING]
            )
        )

    def take(job: str, instance: str) -> str | None:
        def work(tx: Tx) -> str | None:
            found = grant(tx, job, instance)
            if found is None:
                return None
            assert jobs.move_job(tx, job, None, JobState.STARTING, stimulus="s", reason="r", lease_id=found.lease_id)
            return found.lease_id

        return managers[-1].write(work)

    for job, instance in managers[0].write(prepare):
        cancelled, lease = at_once([partial(cancel, job), partial(take, job, instance)])
        assert cancelled in {True, False}
        assert lease is None or isinstance(lease, str)
        assert (cancelled is True) != isinstance(lease, str), "it was cancelled, or got a machine"


def test_law_1_a_leased_instance_is_not_removed(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str]:
        add_pool(tx)
        instance = add_instance(tx)
        return instance, granted(tx, instance)

    instance, lease = store.write(work)
    for state in (None, LeaseState.RUNNING, LeaseState.CLEANING):
        if state is not None:
            store.write(lambda tx, s=state: leases.move_lease(tx, lease, s, stimulus="test", reason="test"))  # type: ignore[misc]
        assert store.write(lambda tx: instances.remove(tx, instance, stimulus="idle", reason="r")) is False
        assert column(store, instance, "state") == "ready"
    store.write(lambda tx: leases.move_lease(tx, lease, LeaseState.RELEASED, stimulus="test", reason="test"))
    assert store.write(lambda tx: instances.remove(tx, instance, stimulus="idle", reason="r")) is True
    assert store.write(lambda tx: instances.remove(tx, instance, stimulus="idle", reason="r")) is False


def test_law_1_only_a_persons_word_removes_a_leased_instance(store: Store) -> None:
    def work(tx: Tx) -> tuple[bool, bool]:
        add_pool(tx)
        instance = add_instance(tx)
        granted(tx, instance)
        gentle = instances.remove(tx, instance, stimulus="person", reason="r")
        return gentle, instances.remove(tx, instance, stimulus="person", reason="r", force=True)

    assert store.write(work) == (False, True)


def test_law_1_no_other_way_leads_to_deleting(store: Store) -> None:
    store.write(add_pool)
    instance = store.write(add_instance)
    with pytest.raises(AssertionError, match="one gate"):
        store.write(lambda tx: instances.move(tx, instance, InstanceState.DELETING, stimulus="s", reason="r"))


@pytest.mark.parametrize("attempt", range(3))
def test_law_1_removal_and_grant_race_never_removes_a_leased_instance(
    managers: tuple[Store, ...], attempt: int
) -> None:
    machines = 8

    def prepare(tx: Tx) -> tuple[list[str], list[str]]:
        add_pool(tx)
        return [add_instance(tx) for _ in range(machines)], [add_job(tx) for _ in range(2 * machines)]

    ready, waiting = managers[0].write(prepare)

    def take(number: int) -> Callable[[], object]:
        return lambda: managers[number % len(managers)].write(
            lambda tx: grant(tx, waiting[number], ready[number % machines], number // machines)
        )

    def remove(number: int) -> Callable[[], object]:
        return lambda: managers[(number + 1) % len(managers)].write(
            lambda tx: instances.remove(tx, ready[number], stimulus="idle", reason="r")
        )

    works = [take(n) for n in range(2 * machines)] + [remove(n) for n in range(machines)]
    turned = works[attempt * 7 :] + works[: attempt * 7]
    done = at_once(turned)
    assert [each for each in done if isinstance(each, Exception)] == []
    held = {row.instance_id for row in active(managers[0])}
    removed = {instance for instance in ready if column(managers[0], instance, "state") == "deleting"}
    assert held.isdisjoint(removed)
    assert held | removed == set(ready), "each machine was either granted or removed"


def test_the_last_lease_that_ends_makes_its_instance_idle(store: Store) -> None:
    def work(tx: Tx) -> tuple[str, str, str]:
        add_pool(tx)
        instance = add_instance(tx)
        return instance, granted(tx, instance, slot=0), granted(tx, instance, slot=1)

    instance, one, two = store.write(work)
    store.write(lambda tx: end(tx, one))
    assert column(store, instance, "idle_since") is None
    store.write(lambda tx: end(tx, two))
    assert isinstance(column(store, instance, "idle_since"), datetime)


def test_two_last_leases_that_end_at_one_moment_leave_their_instance_idle(managers: tuple[Store, ...]) -> None:
    managers[0].write(add_pool)

    def prepare(tx: Tx) -> tuple[str, list[str]]:
        instance = add_instance(tx)
        held = [granted(tx, instance, slot=slot) for slot in range(4)]
        for lease in held:
            leases.move_lease(tx, lease, LeaseState.CLEANING, stimulus="test", reason="test")
        return instance, held

    for _ in range(10):
        instance, held = managers[0].write(prepare)
        at_once(
            [
                lambda n=n, lease=lease: managers[n % len(managers)].write(  # type: ignore[misc]
                    lambda tx: leases.move_lease(tx, lease, LeaseState.RELEASED, stimulus="clean", reason="r")
                )
                for n, lease in enumerate(held)
            ]
        )
        assert isinstance(column(managers[0], instance, "idle_since"), datetime)


def test_a_lease_that_has_ended_stays_ended(store: Store) -> None:
    def work(tx: Tx) -> str:
        add_pool(tx)
        lease = granted(tx, add_instance(tx))
        end(tx, lease)
        return lease

    lease = store.write(work)
    for state in LeaseState:
        assert store.write(lambda tx, s=state: leases.move_lease(tx, lease, s, stimulus="s", reason="r")) is False  # type: ignore[misc]
    found = store.read(lambda tx: leases.lease(tx, lease))
    assert found is not None
    assert found.state is LeaseState.RELEASED


def test_a_lease_may_not_skip_its_cleaning(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_pool(tx)
        leases.move_lease(tx, granted(tx, add_instance(tx)), LeaseState.RELEASED, stimulus="s", reason="r")

    with pytest.raises(IllegalTransition, match="may not go from granted to released"):
        store.write(work)
    assert active(store) == []
