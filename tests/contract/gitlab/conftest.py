"""A scripted server, and our client of it, for each test; and proof that neither threads nor sockets stay behind."""

import dataclasses
import os
import threading
from datetime import UTC, datetime

import pytest

from fleet.gitlab.client import GitLab
from fleet.gitlab.endpoint import Endpoint
from tests.contract.gitlab.scripted_server import ScriptedServer, until


@dataclasses.dataclass
class Seen:
    waits: list = dataclasses.field(default_factory=list)
    observed: list = dataclasses.field(default_factory=list)
    retries: list = dataclasses.field(default_factory=list)


@pytest.fixture
def seen():
    """What the client waited for and counted."""
    return Seen()


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    descriptors, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    yield
    until(lambda: not set(threading.enumerate()) - threads)
    until(lambda: len(os.listdir("/proc/self/fd")) <= len(descriptors))


@pytest.fixture
def server(nothing_stays_behind):
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def client_of(nothing_stays_behind, seen):
    """Makes clients that do not really wait; they are closed at the end."""
    made = []

    def make(url, *, tls_ca_file=None, tls_cert_file=None, tls_key_file=None, **settings):
        endpoint = Endpoint(url=url, tls_ca_file=tls_ca_file, tls_cert_file=tls_cert_file, tls_key_file=tls_key_file)
        defaults = {
            "user_agent": "fleet 1.0 (test; linux/amd64)",
            "now": lambda: datetime(2026, 1, 1, tzinfo=UTC),
            "environment": {},
            "pause": lambda _cancel, seconds: bool(seen.waits.append(seconds)),
            "observe": lambda **what: seen.observed.append(what),
            "count_retry": lambda **what: seen.retries.append(what),
        }
        client = GitLab(endpoint, **{**defaults, **settings})
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def gitlab(server, client_of):
    return client_of(server.url)
