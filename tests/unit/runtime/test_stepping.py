"""A step of the clock is noticed once, and everything that waits for an instant moves along with a shared one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from fleet.runtime.clock import Clock
from fleet.runtime.stepping import ClockWatch
from fleet.store.database import Store, Tx
from fleet.store.managers import session_of, store_identity
from fleet.store.shifting import STEPPED, shift
from fleet.store.tables import instances, jobs, journal
from tests.contract.store import world

HOUR = timedelta(hours=1)


class SetClock(Clock):
    """Its wall may be set."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = timedelta(0)

    def wall(self) -> datetime:
        return super().wall() + self.ahead


class SetStore(Store):
    """A shared store whose clock may be set, as its server's may."""

    ahead = timedelta(0)

    def _now(self, sql: sa.Connection) -> datetime:
        return super()._now(sql) + self.ahead


def watched(store, clock) -> tuple[ClockWatch, list[str]]:
    froze: list[str] = []
    watch = ClockWatch(store=store, clock=clock, freeze=lambda: froze.append("frozen"))
    watch.look()
    return watch, froze


@pytest.fixture
def alone(sqlite_url):
    store = world.opened(sqlite_url)
    yield store
    store.close()


@pytest.fixture
def shared(postgres_url):
    store = SetStore(postgres_url, world.new_seal(), lambda: datetime.now(UTC))
    store.open()
    store.write(lambda tx: store_identity(tx, "store"))
    yield store
    store.close()


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_step_freezes_one_round_and_is_told_once(alone, by):
    clock = SetClock()
    watch, froze = watched(alone, clock)
    clock.ahead = by
    with capture_logs() as lines:
        assert abs(watch.look() - by) < timedelta(seconds=5)
        assert watch.look() == timedelta(0)
    assert froze == ["frozen"]
    assert [line["event"] for line in lines] == ["clock_stepped"]
    assert watch.steps == 1


def test_a_clock_that_is_slewed_is_no_step(alone):
    clock = SetClock()
    watch, froze = watched(alone, clock)
    for second in range(60):
        clock.ahead = timedelta(seconds=second)
        assert watch.look() == timedelta(0)
    assert froze == []


def test_it_looks_before_the_work(alone):
    clock = SetClock()
    watch, froze = watched(alone, clock)
    clock.ahead = HOUR
    assert watch.before(lambda: list(froze))() == ["frozen"]


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_all_that_still_counts_moves_with_a_shared_clock_and_what_is_over_does_not(shared, by):
    def make(tx: Tx) -> tuple[str, str]:
        world.add_pool(tx)
        return world.add_instance(tx, state_by=tx.now), world.add_job(tx)

    instance, job = shared.write(make)
    before = shared.read(lambda tx: instants(tx, instance, job))
    watch, froze = watched(shared, Clock())
    shared.ahead = by
    assert watch.look() != timedelta(0)
    after = shared.read(lambda tx: instants(tx, instance, job))
    assert froze == ["frozen"]
    assert before.keys() == after.keys()
    for name, instant in before.items():
        assert abs(after[name] - instant - by) < timedelta(seconds=5), name
    assert "idle_since" in before
    assert "deadline_at" in before


def instants(tx: Tx, instance: str, job: str) -> dict[str, datetime]:
    found = {
        **tx.sql.execute(sa.select(instances).where(instances.c.instance_id == instance)).one()._mapping,
        **tx.sql.execute(sa.select(jobs).where(jobs.c.job_key == job)).one()._mapping,
    }
    return {name: value for name, value in found.items() if isinstance(value, datetime)}


def test_of_two_managers_that_notice_one_step_only_the_first_shifts(shared):
    assert shared.write(lambda tx: shift(tx, HOUR))
    assert not shared.write(lambda tx: shift(tx, HOUR))
    told = sa.select(journal.c.reason).where(journal.c.stimulus == STEPPED)
    reasons = shared.read(lambda tx: list(tx.sql.execute(told).scalars()))
    assert reasons == ["the database's clock was set by +3600 s: deadlines move along"]


def test_a_later_step_is_another_step(shared):
    assert shared.write(lambda tx: shift(tx, HOUR))
    shared.ahead = timedelta(minutes=2)
    assert shared.write(lambda tx: shift(tx, HOUR))


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_the_claims_of_those_that_live_move_too_renewed_since_or_not(shared, by):
    slow, quick = shared.write(lambda tx: (world.begin(tx, "slow"), world.begin(tx, "quick")))
    shared.ahead = by
    shared.write(lambda tx: world.begin(tx, "quick", session="s-2"))
    shared.write(lambda tx: shift(tx, by))
    for each in (slow, quick):
        _, until = shared.read(lambda tx, each=each: session_of(tx, each))
        assert abs(until - shared.read(lambda tx: tx.now)) <= world.TTL


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_what_was_written_between_the_step_and_its_being_noticed_stays(shared, by):
    shared.write(world.add_pool)
    old = shared.write(lambda tx: (world.add_instance(tx, state_by=tx.now + HOUR), world.add_job(tx)))
    watch, _ = watched(shared, Clock())
    shared.ahead = by
    new = shared.write(lambda tx: (world.add_instance(tx, state_by=tx.now + HOUR), world.add_job(tx)))
    before = shared.read(lambda tx: instants(tx, *new))
    watch.look()
    assert shared.read(lambda tx: instants(tx, *new)) == before
    now = shared.read(lambda tx: tx.now)
    for name, instant in shared.read(lambda tx: instants(tx, *old)).items():
        assert abs(instant - now) < HOUR + timedelta(seconds=60), name
        assert abs(instant - before[name]) < timedelta(seconds=60), name
