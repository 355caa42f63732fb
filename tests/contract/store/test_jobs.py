"""A job's row changes by its owner's hand alone, and nothing secret outlives the job."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from fleet.model.ids import ManagerId
from fleet.model.job import Job, Outcome
from fleet.model.lifecycle import IllegalTransition, JobState
from fleet.store import jobs, journal, leases, managers
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreConflict
from fleet.store.tables import jobs as job_rows
from fleet.store.tables import reservations
from tests.contract.store.world import RUNNER, add_job, add_pool, begin


def of(store: Store, key: str) -> Job:
    found = store.read(lambda tx: jobs.job(tx, key))
    assert found is not None
    return found


def move(store: Store, key: str, epoch: int | None, new: JobState, **more: object) -> bool:
    return store.write(lambda tx: jobs.move_job(tx, key, epoch, new, stimulus="s", reason="r", **more))  # type: ignore[arg-type]


def test_a_received_job_is_there_with_all_that_gitlab_gave(store: Store) -> None:
    key = store.write(lambda tx: add_job(tx, token="the token", payload=b'{"id": 7}', waiting=False))
    job = of(store, key)
    assert (job.state, job.epoch, job.token, job.owner) == (JobState.RECEIVED, 1, "the token", "m-1")
    assert job.deadline_at - job.received_at == timedelta(hours=1)
    assert store.read(lambda tx: jobs.payload_of(tx, key)) == b'{"id": 7}'
    assert store.read(lambda tx: jobs.job(tx, "another")) is None


def test_a_job_is_received_once(store: Store) -> None:
    store.write(lambda tx: add_job(tx, "j"))
    with pytest.raises(StoreConflict):
        store.write(lambda tx: add_job(tx, "j"))


def test_open_jobs_are_the_managers_own_oldest_first_and_in_the_states_asked_for(store: Store) -> None:
    def work(tx: Tx) -> None:
        add_job(tx, "b")
        add_job(tx, "a", waiting=False)
        add_job(tx, "other", owner="m-2")
        jobs.move_job(tx, add_job(tx, "ended"), 1, JobState.ABANDONED, stimulus="s", reason="r")

    store.write(work)
    found = store.read(lambda tx: jobs.open_jobs(tx, "m-1"))
    assert [job.key for job in found] == ["a", "b"]
    waiting = store.read(lambda tx: jobs.open_jobs(tx, "m-1", [JobState.WAITING]))
    assert [job.key for job in waiting] == ["b"]


def test_law_5_a_late_manager_changes_nothing_of_a_job(store: Store) -> None:
    def work(tx: Tx) -> str:
        begin(tx, ttl=timedelta(seconds=-1))
        begin(tx, "m-2")
        key = add_job(tx)
        managers.take_over_jobs(tx, ManagerId("m-2"))
        return key

    key = store.write(work)
    before = of(store, key)
    assert move(store, key, 1, JobState.STARTING, lease_id="l") is False
    assert store.write(lambda tx: jobs.update_job(tx, key, 1, prologue=b"late")) is False
    assert store.write(lambda tx: jobs.finish_job(tx, key, 1, Outcome(state="failed"))) is False
    store.write(lambda tx: jobs.note_sent(tx, [(key, 1, 100, 5)]))
    assert of(store, key) == before
    assert move(store, key, 2, JobState.STARTING, lease_id="l") is True


def test_law_5_a_change_is_made_from_the_expected_state_only(store: Store) -> None:
    key = store.write(add_job)
    assert move(store, key, 1, JobState.FINISHING, only_from=[JobState.RUNNING]) is False
    assert of(store, key).state is JobState.WAITING
    assert move(store, key, None, JobState.STARTING, only_from=[JobState.WAITING]) is True, "planning asks for no epoch"


def test_a_change_that_the_life_cycle_does_not_know_is_refused_and_leaves_the_job_as_it_was(store: Store) -> None:
    key = store.write(add_job)
    with pytest.raises(IllegalTransition, match=f"job {key} may not go from waiting to running"):
        move(store, key, 1, JobState.RUNNING)
    assert of(store, key).state is JobState.WAITING


def test_nothing_secret_outlives_the_job(store: Store) -> None:
    key = store.write(add_job)
    assert move(store, key, 1, JobState.ABANDONED)
    row = store.read(lambda tx: tx.sql.execute(sa.select(job_rows)).one())
    assert (row.token, row.payload) == (b"", b"")
    assert row.finished_at is not None
    assert of(store, key).token == ""
    assert store.read(lambda tx: jobs.payload_of(tx, key)) == b""


@pytest.mark.parametrize("ended", [JobState.FINISHED, JobState.ABANDONED])
def test_what_has_ended_does_not_begin_again(store: Store, ended: JobState) -> None:
    key = store.write(add_job)
    if ended is JobState.FINISHED:
        move(store, key, 1, JobState.FINISHING)
    assert move(store, key, 1, ended)
    for state in JobState:
        assert move(store, key, None, state) is False


def test_the_outcome_comes_back_as_it_was_told_and_the_demand_ends_with_it(store: Store) -> None:
    outcome = Outcome(state="failed", failure_reason="script_failure", exit_code=3, message="exit code 3")

    def work(tx: Tx) -> str:
        add_pool(tx)
        key = add_job(tx)
        leases.owe(tx, "r", pool="linux", runner_key=RUNNER, manager_id="m-1", job_key=key)
        assert jobs.finish_job(tx, key, 1, outcome, epilogue=b"bye", log_bytes=12)
        return key

    key = store.write(work)
    job = of(store, key)
    assert (job.outcome, job.epilogue, job.log_bytes) == (outcome, b"bye", 12)
    assert store.read(lambda tx: tx.sql.execute(sa.select(reservations)).all()) == []
    line = store.read(lambda tx: journal.story_of(tx.sql, key))[-1]
    assert (line.stimulus, line.reason, line.more["old"], line.more["new"]) == (
        "script_failure",
        "exit code 3",
        "waiting",
        "finishing",
    )


def test_what_gitlab_has_of_each_trace_is_remembered_for_many_at_once(store: Store) -> None:
    keys = [store.write(add_job) for _ in range(3)]
    store.write(lambda tx: jobs.note_sent(tx, [(key, 1, 10 * n, 2**32 - 1) for n, key in enumerate(keys)]))
    store.write(lambda tx: jobs.note_sent(tx, []))
    assert [of(store, key).sent_bytes for key in keys] == [0, 10, 20]
    crcs = store.read(lambda tx: tx.sql.execute(sa.select(job_rows.c.sent_crc)).scalars().all())
    assert crcs == [2**32 - 1] * 3


def test_large_payloads_and_traces_fit(store: Store) -> None:
    payload = bytes(range(256)) * 8192
    key = store.write(lambda tx: add_job(tx, payload=payload))
    store.write(lambda tx: jobs.update_job(tx, key, 1, prologue=payload, log_bytes=2**40))
    assert store.read(lambda tx: jobs.payload_of(tx, key)) == payload
    assert (of(store, key).prologue, of(store, key).log_bytes) == (payload, 2**40)
