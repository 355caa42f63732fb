"""A store whose clock the tests move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.store.database import Store
from tests.contract.store.world import HandClock, opened


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(sqlite_url: str, clock: HandClock) -> Iterator[Store]:
    store = opened(sqlite_url, clock=clock)
    yield store
    store.close()
