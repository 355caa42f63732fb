"""PostgreSQL goes away, stands still or asks for another try: nothing is half done, and it goes on by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from fleet.store import engine as engine_module
from fleet.store.database import ATTEMPTS, Store, Tx
from fleet.store.engine import StoreError, StoreUnavailable
from fleet.store.seal import Seal
from fleet.store.tables import cool_downs
from tests.contract.store.world import HandClock, at_once
from tests.postgres import Cluster


def put(tx: Tx, scope: str) -> None:
    tx.sql.execute(sa.insert(cool_downs).values(scope=scope, until=tx.now, failures=1, reason="r"))


def scopes(tx: Tx) -> set[str]:
    return set(tx.sql.execute(sa.select(cool_downs.c.scope)).scalars())


@pytest.fixture
def far(postgres_server_url: str, seal: Seal, clock: HandClock) -> Iterator[Store]:
    """A store, not yet opened, on a server that the test may stop."""
    store = Store(postgres_server_url, seal, clock)
    yield store
    store.close()


def test_a_server_that_is_down_at_the_start_is_told_of_without_the_password(
    far: Store, postgres_server: Cluster
) -> None:
    postgres_server.stop()
    with pytest.raises(StoreUnavailable, match=r"postgresql.*127\.0\.0\.1.*refused") as caught:
        far.open()
    assert postgres_server.password not in str(caught.value)
    postgres_server.start()
    assert far.open() is True


def test_a_wrong_password_is_told_of_without_it(postgres_server_url: str, seal: Seal, clock: HandClock) -> None:
    url = sa.make_url(postgres_server_url).set(password="wr0ng-secret").render_as_string(hide_password=False)
    store = Store(url, seal, clock)
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        store.open()
    store.close()
    assert "wr0ng-secret" not in str(caught.value)


@pytest.mark.parametrize("crash", [False, True])
def test_a_server_that_goes_away_stops_work_until_it_is_back(far: Store, postgres_server: Cluster, crash: bool) -> None:
    far.open()
    far.write(lambda tx: put(tx, "before"))
    postgres_server.stop(immediate=crash)
    for attempt in (far.read, far.write):
        with pytest.raises(StoreUnavailable):
            attempt(scopes)
    postgres_server.start()
    far.write(lambda tx: put(tx, "after"))
    assert far.read(scopes) == {"before", "after"}


def test_a_restart_between_two_pieces_of_work_is_not_noticed_by_anyone(far: Store, postgres_server: Cluster) -> None:
    far.open()
    gate = threading.Barrier(8)
    assert at_once([lambda: far.read(lambda _tx: gate.wait(30) < 8)] * 8) == [True] * 8, "eight connections are pooled"
    postgres_server.stop()
    postgres_server.start()
    assert at_once([lambda: far.read(scopes)] * 4 + [lambda: far.write(scopes)] * 4) == [set()] * 8


def test_work_that_is_cut_off_in_the_middle_leaves_nothing(far: Store, postgres_server: Cluster) -> None:
    far.open()

    def cut_off(tx: Tx) -> None:
        put(tx, "half")
        postgres_server.stop()
        put(tx, "other half")

    with pytest.raises(StoreUnavailable):
        far.write(cut_off)
    postgres_server.start()
    assert far.read(scopes) == set()


def test_a_server_that_stands_still_and_goes_on_loses_nothing(far: Store, postgres_server: Cluster) -> None:
    far.open()
    far.write(scopes)
    postgres_server.pause()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(far.write, lambda tx: put(tx, "waited"))
        postgres_server.resume()
        waiting.result(30)
    assert far.read(scopes) == {"waited"}


@pytest.fixture
def near(postgres_url: str, seal: Seal, clock: HandClock) -> Iterator[Callable[[], Store]]:
    """Opens the session's server."""
    made: list[Store] = []

    def make() -> Store:
        made.append(Store(postgres_url, seal, clock))
        made[-1].open()
        return made[-1]

    yield make
    for store in made:
        store.close()


def fail_first(times: int, state: str, ran: list[int]) -> Callable[[Tx], None]:
    """Work that the server refuses with `state` as often as told."""

    def work(tx: Tx) -> None:
        ran.append(1)
        put(tx, f"run-{len(ran)}")
        if len(ran) <= times:
            tx.sql.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '{state}'; END $$")

    return work


@pytest.mark.parametrize("state", ["40001", "40P01", "23505"])
def test_work_that_the_server_asks_to_run_again_is_run_again_and_leaves_its_last_run_only(
    near: Callable[[], Store], state: str
) -> None:
    store, ran = near(), []
    store.write(fail_first(2, state, ran))
    assert store.read(scopes) == {"run-3"}


def test_work_that_never_succeeds_is_given_up(near: Callable[[], Store]) -> None:
    store, ran = near(), []
    with pytest.raises(StoreUnavailable, match="again"):
        store.write(fail_first(1000, "40001", ran))
    assert len(ran) == ATTEMPTS
    assert store.read(scopes) == set()


def test_work_that_is_wrong_is_not_run_again(near: Callable[[], Store]) -> None:
    store, ran = near(), []
    with pytest.raises(StoreError, match="again"):
        store.write(fail_first(1000, "42501", ran))
    assert len(ran) == 1


def test_two_that_wait_for_each_other_both_come_through(near: Callable[[], Store]) -> None:
    store = near()
    store.write(lambda tx: (put(tx, "a"), put(tx, "b")))
    met = threading.Barrier(2)
    first_run = [True, True]

    def raise_both(me: int, order: tuple[str, str]) -> Callable[[Tx], None]:
        def work(tx: Tx) -> None:
            for scope in order:
                tx.sql.execute(
                    sa.update(cool_downs).where(cool_downs.c.scope == scope).values(failures=cool_downs.c.failures + 1)
                )
                if first_run[me]:
                    first_run[me] = False
                    met.wait(30)

        return work

    works = [raise_both(0, ("a", "b")), raise_both(1, ("b", "a"))]
    assert at_once([lambda w=w: store.write(w) for w in works]) == [None, None]  # type: ignore[misc]
    counts = store.read(lambda tx: tx.sql.execute(sa.select(cool_downs.c.failures)).scalars().all())
    assert counts == [3, 3]


def test_law_5_a_manager_that_stands_still_in_the_middle_of_its_work_holds_up_the_others_for_a_bounded_time(
    near: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LIMITS", (("idle_in_transaction_session_timeout", "500ms"),))
    sleepy, other = near(), near()
    other.write(lambda tx: put(tx, "a"))
    holds, wake = threading.Event(), threading.Event()

    def stands_still(tx: Tx) -> None:
        tx.sql.execute(sa.update(cool_downs).values(failures=100))
        holds.set()
        assert wake.wait(30)
        put(tx, "late")

    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(sleepy.write, stands_still)
        assert holds.wait(30)
        other.write(lambda tx: tx.sql.execute(sa.update(cool_downs).values(failures=2)))
        wake.set()
        assert isinstance(late.exception(30), StoreUnavailable)
    failures = other.read(lambda tx: tx.sql.execute(sa.select(cool_downs.c.failures)).scalar_one())
    assert (failures, other.read(scopes)) == (2, {"a"})
    sleepy.write(lambda tx: put(tx, "well again"))


def test_every_connection_waits_for_a_bounded_time_only(near: Callable[[], Store]) -> None:
    store = near()
    for name, value in engine_module.LIMITS:
        shown = store.read(lambda tx, name=name: tx.sql.exec_driver_sql(f"SHOW {name}").scalar_one())  # type: ignore[misc]
        assert shown in {value, value.replace("60s", "1min")}


def test_more_threads_than_connections_wait_their_turn(near: Callable[[], Store]) -> None:
    store = near()
    assert at_once([lambda: store.write(scopes)] * 40) == [set()] * 40
