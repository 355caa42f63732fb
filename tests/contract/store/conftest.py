from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fleet.store.database import Store
from fleet.store.seal import Seal
from tests.contract.store.world import HandClock, new_seal, opened


@pytest.fixture
def clock() -> HandClock:
    """The manager's clock; PostgreSQL goes by its own."""
    return HandClock()


@pytest.fixture
def seal() -> Seal:
    return new_seal()


@pytest.fixture
def open_store(store_url: str, seal: Seal, clock: HandClock) -> Iterator[Callable[[], Store]]:
    """Opens the database once more, as another part of the program would."""
    made: list[Store] = []

    def make() -> Store:
        made.append(opened(store_url, seal, clock))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def managers(store: Store, open_store: Callable[[], Store]) -> tuple[Store, ...]:
    """As many doors to one database as managers may share it: two on PostgreSQL, one on SQLite."""
    return (store, open_store()) if store.shared else (store,)


@pytest.fixture
def open_file() -> Iterator[Callable[[str], Store]]:
    """Opens any database by its URL."""
    made: list[Store] = []

    def make(url: str) -> Store:
        made.append(opened(url))
        return made[-1]

    yield make
    for store in made:
        store.close()
