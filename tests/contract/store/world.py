"""A small fleet to write about: pools, ready instances and waiting jobs, made through the store's own functions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cryptography.fernet import Fernet

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import InstanceState, JobState
from fleet.store import instances, jobs, leases, managers, pools, snapshots
from fleet.store.database import Store, Tx
from fleet.store.seal import Seal

T = TypeVar("T")
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TTL = timedelta(seconds=30)
RUNNER = "https://gitlab.example|7"
_numbers = itertools.count(1)


class HandClock:
    """Shows noon until it is told otherwise."""

    def __init__(self) -> None:
        self.instant = NOON

    def __call__(self) -> datetime:
        return self.instant

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


def new_seal() -> Seal:
    return Seal(Fernet.generate_key().decode())


def opened(url: str, seal: Seal | None = None, clock: Callable[[], datetime] | None = None) -> Store:
    store = Store(url, seal or new_seal(), clock or HandClock())
    store.open()
    return store


def fresh(word: str) -> str:
    """A name that no other row has."""
    return f"{word}-{next(_numbers)}"


def add_pool(tx: Tx, pool: str = "linux", *, ask_limit: int = 0, fingerprint: str = "f1") -> str:
    pools.put_pool(
        tx, pool, plugin="local", settings={"image": "x"}, fingerprint=fingerprint, keys=("private-half", "public-half")
    )
    snapshots.set_ask_limit(tx, pool, ask_limit)
    return pool


def add_runner(tx: Tx, key: str = RUNNER, *, pool: str = "linux", token: str = "t") -> str:
    pools.put_runner(
        tx,
        key,
        name="a runner",
        url="https://gitlab.example",
        pool=pool,
        settings={"limit": 3},
        token=token,
        obtained_at=None,
        expires_at=None,
    )
    return key


def add_instance(
    tx: Tx,
    instance_id: str | None = None,
    *,
    pool: str = "linux",
    state: InstanceState = InstanceState.READY,
    **columns: Any,
) -> str:
    instance_id = instance_id or fresh("i")
    columns = {"idle_since": tx.now if state is InstanceState.READY else None, **columns}
    instances.add(
        tx,
        instance_id=instance_id,
        pool=pool,
        request_id=columns.pop("request_id", "r-0"),
        placement="default",
        settings_version=1,
        reason="a test wants it",
        state=state,
        **columns,
    )
    return instance_id


def add_job(
    tx: Tx,
    job_key: str | None = None,
    *,
    pool: str = "linux",
    runner: str = RUNNER,
    owner: str = "m-1",
    project_id: int = 1,
    token: str = "job-token",
    payload: bytes = b"{}",
    waiting: bool = True,
) -> str:
    """A job that has just been received; one that waits, unless told otherwise."""
    job_key = job_key or fresh("j")
    jobs.receive(
        tx,
        job_key=job_key,
        runner_key=runner,
        pool=pool,
        url="https://gitlab.example",
        gitlab_job_id=next(_numbers),
        project_id=project_id,
        name="build",
        token=token,
        payload=payload,
        deadline_at=tx.now + timedelta(hours=1),
        owner=owner,
    )
    if waiting:
        jobs.move_job(tx, job_key, 1, JobState.WAITING, stimulus="acknowledged", reason="GitLab was told")
    return job_key


def begin(tx: Tx, manager: str = "m-1", *, session: str = "s-1", ttl: timedelta = TTL) -> ManagerId:
    me = ManagerId(manager)
    managers.begin_session(tx, me, session=session, version="0.1", host="bastion", api=None, ttl=ttl)
    return me


def granted(tx: Tx, instance_id: str, job_key: str | None = None, *, slot: int = 0) -> str:
    """A lease of a waiting job, whose job is starting."""
    job_key = job_key or add_job(tx)
    lease_id = fresh("l")
    assert leases.grant(tx, lease_id=lease_id, job_key=job_key, instance_id=instance_id, slot=slot) is not None
    jobs.move_job(tx, job_key, None, JobState.STARTING, stimulus="leased", reason="a slot", lease_id=lease_id)
    return lease_id


def at_once(works: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Run all at one moment, each on a thread; what each returned or raised, in order."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], T]) -> T | Exception:
        gate.wait(30)
        try:
            return work()
        except Exception as exc:  # noqa: BLE001  whatever it is, the test looks at it
            return exc

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))
