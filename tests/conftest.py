"""What every test may ask for: databases to keep a store in, and how Hypothesis searches."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from fleet.store.engine import open_engine, upgrade
from tests.docker.engine import Engine, running_engine
from tests.docker.registry import Registry, running_registry
from tests.docker.sharing import shared_engine
from tests.postgres import Cluster, Databases, running_cluster, server

settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> Iterator[None]:
    """What one test says about logs holds for no other."""
    yield
    structlog.reset_defaults()


def _upgraded(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_databases() -> Iterator[Databases]:
    """Makes databases on this session's server."""
    with server() as admin:
        yield Databases(admin)


@pytest.fixture(scope="session")
def postgres_template(postgres_databases: Databases) -> Iterator[str]:
    """The name of a database with the schema in it."""
    name = postgres_databases.make()
    _upgraded(postgres_databases.url_of(name))
    yield name
    postgres_databases.drop(name)


@pytest.fixture
def postgres_url(postgres_databases: Databases, postgres_template: str) -> Iterator[str]:
    """A fresh PostgreSQL database that has the schema."""
    name = postgres_databases.make(template=postgres_template)
    yield postgres_databases.url_of(name)
    postgres_databases.drop(name)


@pytest.fixture
def empty_postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """A fresh PostgreSQL database without any table."""
    name = postgres_databases.make()
    yield postgres_databases.url_of(name)
    postgres_databases.drop(name)


@pytest.fixture(scope="session")
def _private_cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_server(_private_cluster: Cluster) -> Iterator[Cluster]:
    """A server that the test may stop, start, pause and resume; its database "postgres" is empty at first."""
    databases = Databases(_private_cluster.url("postgres"))
    yield _private_cluster
    if _private_cluster.process is None:
        _private_cluster.start()
    _private_cluster.resume()
    databases.run("SELECT 1")


@pytest.fixture
def postgres_server_url(postgres_server: Cluster) -> Iterator[str]:
    """A fresh database without tables on the server that the test may stop."""
    databases = Databases(postgres_server.url("postgres"))
    name = databases.make()
    yield databases.url_of(name)
    if postgres_server.process is None:
        postgres_server.start()
    postgres_server.resume()
    databases.drop(name)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _upgraded(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(_sqlite_template: pathlib.Path, tmp_path: pathlib.Path) -> str:
    """A fresh SQLite file that has the schema."""
    path = tmp_path / "fleet.db"
    shutil.copy(_sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A fresh database that has the schema; the test runs once on each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_store_url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    """A fresh database without any table; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """A Docker Engine that all tests of this run share; what a test makes in it, it removes."""
    with shared_engine() as engine:
        yield engine


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    """A Docker Engine that the test may stop, kill and start."""
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def docker_registry() -> Iterator[Registry]:
    """A private registry on loopback that wants a login."""
    with running_registry() as registry:
        yield registry
