"""The heart renews the claims, says when they cannot be trusted, and outlives whatever goes wrong."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from fleet.model.ids import ManagerId
from fleet.runtime.heart import Heart
from fleet.sdk import FleetError
from fleet.store import managers
from fleet.store.database import Store
from tests.acceptance.manager import wait_until
from tests.contract.store.world import HandClock, new_seal, opened

ME = ManagerId("s_aaaaaaaaaaaa")
TTL = timedelta(seconds=1)


@pytest.fixture
def store(store_url):
    made = opened(store_url, new_seal())
    yield made
    made.close()


@pytest.fixture
def beating(store):
    """Makes hearts, and ends them."""
    made = []

    def make(session="one", ttl=TTL) -> Heart:
        begin(store, session, ttl)
        heart = Heart(store=store, me=ME, session=session, ttl=ttl)
        made.append(heart)
        return heart

    yield make
    for heart in made:
        heart.stop(5)


def begin(store: Store, session: str, ttl: timedelta) -> None:
    store.write(lambda tx: managers.begin_session(tx, ME, session=session, version="1", host="h", api=None, ttl=ttl))


def alive_until(store: Store):
    found = store.read(lambda tx: managers.session_of(tx, ME))
    return None if found is None else found[1]


def test_it_renews_the_claims_again_and_again(store, beating):
    heart = beating()
    begun = alive_until(store)
    heart.beat()
    assert heart.may_speak()
    assert alive_until(store) >= begun
    heart.start()
    assert heart.may_speak()
    assert heart.failing_since is None


def test_claims_that_another_session_has_are_lost(store, beating):
    heart = beating()
    lost = threading.Event()
    heart.lost = lost.set
    begin(store, "two", TTL)
    heart.beat()
    assert lost.is_set()


def test_it_goes_on_when_recovering_fails_and_tries_again(store, beating):
    heart = beating(ttl=timedelta(seconds=0.4))
    tries = []

    def fail() -> None:
        tries.append(1)
        raise FleetError("the database went away again")

    heart.lost = fail
    begin(store, "two", timedelta(hours=1))
    with capture_logs() as lines:
        heart.start()
        wait_until(lambda: len(tries) >= 3, 10, "the third try")
    assert {"claims_lost", "claims_not_recovered"} <= {line["event"] for line in lines}


def test_a_database_that_is_away_is_told_once_and_so_is_its_return(sqlite_url):
    store = Store(sqlite_url, new_seal(), HandClock())
    heart = Heart(store=store, me=ME, session="one", ttl=TTL)  # the store is not open: nothing can be written
    with capture_logs() as lines:
        heart.beat()
        heart.beat()
        assert heart.failing_since is not None
        store.open()
        begin(store, "one", TTL)
        heart.beat()
    assert [line["event"] for line in lines] == ["claims_not_renewed", "claims_renewed_again"]
    assert heart.failing_since is None
    store.close()


def test_who_shares_a_database_falls_silent_when_the_claims_have_run_out(postgres_url):
    store = opened(postgres_url)
    begin(store, "one", TTL)
    heart = Heart(store=store, me=ME, session="one", ttl=TTL)
    assert not heart.may_speak(), "before it has begun"
    heart.beat()
    assert heart.may_speak()
    wait_until(lambda: not heart.may_speak(), 5, "the end of the claims")
    lost = threading.Event()
    heart.lost = lost.set
    wait_until(lambda: alive_until(store) is None, 5, "the end of the claims in the store")
    heart.beat()
    assert lost.is_set()
    store.close()


def test_who_is_alone_with_a_database_never_falls_silent(sqlite_url):
    store = opened(sqlite_url)
    heart = Heart(store=store, me=ME, session="one", ttl=timedelta(0))
    assert heart.may_speak()
    begin(store, "one", timedelta(0))
    heart.lost = lambda: pytest.fail("nobody else can have them")
    heart.beat()
    store.close()
