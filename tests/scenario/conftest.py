from __future__ import annotations

import pytest

from fleet.sdk.testing import MemoryCloud
from tests.contract.store.world import NOON, HandClock
from tests.scenario.world import World, pool_table


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def seconds(clock):
    """The test's clock as clouds read it."""

    def read() -> float:
        return (clock.instant - NOON).total_seconds()

    return read


@pytest.fixture
def make_cloud(seconds):
    """Makes healthy clouds that live by the test's clock."""

    def make(account: str = "memory", **keywords):
        return MemoryCloud(account, now=seconds, **keywords)

    return make


@pytest.fixture
def make_world(sqlite_url, clock):
    """Makes the manager; one pool `p` unless the test says otherwise."""
    made = []

    def make(clouds, config: str | None = None, **keywords):
        by_pool = clouds if isinstance(clouds, dict) else {"p": clouds}
        made.append(World(sqlite_url, by_pool, config or pool_table(**keywords), clock))
        return made[-1]

    yield make
    for world in made:
        world.close()
