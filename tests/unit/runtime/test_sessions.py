"""Sessions: made for a poll, kept with the job that it brings, and gone with the job."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import JobState
from fleet.runtime.sessions import Sessions
from fleet.store import jobs, managers
from fleet.store.database import Store
from fleet.store.payloads import pack
from fleet.store.seal import Seal

ME, OTHER = ManagerId("s_aaaaaaaaaaaa"), ManagerId("s_bbbbbbbbbbbb")


@pytest.fixture
def store(tmp_path):
    made = Store(
        f"sqlite:///{tmp_path}/s.sqlite", Seal(Fernet.generate_key().decode()), lambda: datetime(2030, 1, 1, tzinfo=UTC)
    )
    made.open()
    made.write(lambda tx: managers.store_identity(tx, "store"))
    yield made
    made.close()


def receive(store, key, session, owner=ME):
    beside = {"session_url": session.get("url", ""), "session_authorization": session.get("authorization", "")}

    def take(tx):
        jobs.receive(
            tx, job_key=key, runner_key="r", pool="p", url="https://gitlab.example", gitlab_job_id=7, project_id=1,
            name="n", token="t", payload=pack(b"{}", beside), deadline_at=tx.now + timedelta(hours=1), owner=owner,
        )  # fmt: skip

    store.write(take)


@pytest.fixture
def sessions(store):
    made = Sessions(store, ME)
    made.where = ("runner.example:8093", "PEM")
    return made


def id_of(offer):
    return offer["url"].rpartition("/")[2]


def test_every_poll_gets_a_session_of_its_own(sessions):
    first, second = sessions.offer(), sessions.offer()
    assert re.fullmatch(r"https://runner\.example:8093/session/[0-9a-f]{64}", first["url"])
    assert first["certificate"] == "PEM"
    assert first["url"] != second["url"]
    assert first["authorization"] != second["authorization"]


def test_nothing_is_offered_while_nothing_is_served(sessions):
    sessions.where = None
    assert sessions.offer() == {}


def test_a_session_is_found_once_its_poll_has_brought_a_job_also_by_a_manager_that_was_started_anew(store, sessions):
    offer = sessions.offer()
    assert sessions.find(id_of(offer)) is None
    receive(store, "job-1", offer)
    for each in (sessions, Sessions(store, ME)):
        found = each.find(id_of(offer))
        assert found.job_key == "job-1"
        assert found.admits(offer["authorization"])
        assert not found.admits(offer["authorization"] + "x")
        assert not found.admits("\udcff")
        assert offer["authorization"] not in repr(found)


def test_jobs_of_others_and_jobs_without_a_session_have_none(store, sessions):
    offer = sessions.offer()
    receive(store, "job-1", offer, owner=OTHER)
    receive(store, "job-2", {})
    assert sessions.find(id_of(offer)) is None
    assert sessions.find("") is None


def test_a_session_is_over_with_its_job(store, sessions):
    offer = sessions.offer()
    receive(store, "job-1", offer)
    session = sessions.find(id_of(offer))
    assert sessions.work(session).state is JobState.RECEIVED
    store.write(lambda tx: jobs.move_job(tx, "job-1", 1, JobState.ABANDONED, stimulus="taken", reason="r"))
    assert sessions.work(session) is None
    assert sessions.find("0" * 64) is None
    assert sessions.find(id_of(offer)) is None
