"""What execution keeps in hand: the book, the channels, the spool, the reporter; and facts of runners and machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.signing import NoCacheStore
from fleet.machine.channel import AgentChannel
from fleet.machine.channels import Channels
from fleet.machine.reach import open_channel
from fleet.model.ids import InstanceId, ManagerId
from fleet.model.instance import Instance
from fleet.model.job import Job, Lease, Outcome
from fleet.sdk import CacheStore, FleetError, SecretDenied, SecretRequest, SecretValue
from fleet.store import instances
from fleet.store.book import Book, Pool, Runner
from fleet.store.database import Store
from fleet.store.spool import Spool


class UnknownMachine(FleetError):
    """The rows name no such instance, or its pool is unknown here."""

    slug = "unknown_machine"


def _nobody(request: SecretRequest) -> SecretValue:
    raise SecretDenied(f"this manager fetches no secrets of {request.provider}")


def _no_cache_store(runner: Runner) -> CacheStore:
    raise NoCacheStore(f"this manager has no cache store for {runner.key}")


class Reports(Protocol):
    """The reporter, as far as execution speaks to it."""

    def watch(self, job: Job, payload: bytes) -> None:
        """Report this job from now on."""

    def grew(self, key: str) -> None:
        """There is more of its trace."""

    def finish(self, key: str, outcome: Outcome, *, incomplete: bool = False) -> None:
        """It has ended and its spool is whole."""

    def watched(self) -> set[str]:
        """The jobs being reported."""

    def drop(self, key: str) -> None:
        """Say nothing more of it."""


@dataclass(slots=True, kw_only=True)
class Desk:
    """Shared by the parts of execution.

    Attributes:
        runner_facts: what rendering must know of a runner.
        now: the manager's own time, for lines of the trace.
        cache_store: what signs for a runner's caches; raises `FleetError` where there is none.
        fetch_secret: asks the plugins for a job's secret.
        holds_logs: others may take our jobs over and cannot read our spool, so a machine forgets a job's log only
            when GitLab has all of it.
    """

    store: Store
    book: Book
    me: ManagerId
    channels: Channels
    spool: Spool
    reports: Reports
    submit: Callable[..., bool]
    hint: Callable[..., None]
    runner_facts: Callable[[Runner, Mapping[str, str]], RunnerFacts]
    now: Callable[[], datetime]
    fetch_secret: Callable[[SecretRequest], SecretValue] = _nobody
    cache_store: Callable[[Runner], CacheStore] = _no_cache_store
    holds_logs: bool = False
    _homes: dict[tuple[int, str | None], dict[str, Any]] = field(default_factory=dict)

    def instance(self, instance_id: str) -> tuple[Instance, Pool]:
        """The row and the pool of an instance."""
        row = self.store.read(lambda tx: instances.instance(tx, InstanceId(instance_id)))
        if row is None or row.pool not in self.book.pools:
            raise UnknownMachine(f"instance {instance_id} is not known here")
        return row, self.book.pools[row.pool]

    def channel(self, instance_id: str) -> AgentChannel:
        """The channel of an instance, opened when none stands.

        Raises:
            MachineError: it cannot be reached.
            UnknownMachine: the rows know no such instance.
        """
        standing = self.channels.get(instance_id)
        if standing is not None:
            return standing
        row, pool = self.instance(instance_id)
        return self.channels.open(instance_id, lambda on_frame: open_channel(row, pool, on_frame, deadline_s=60.0))

    def machine_facts(self, channel: AgentChannel, instance_id: str, user: str | None) -> MachineFacts:
        """What rendering must know of a machine; the user's home is asked for once a channel."""
        key = (id(channel), user)
        told = self._homes.get(key)
        if told is None:
            told = channel.request("user", 30.0, name=user)
            if len(self._homes) > 10_000:
                self._homes.clear()
            self._homes[key] = told
        hello = channel.hello
        return MachineFacts(
            instance_id=instance_id,
            home=str(told.get("home") or hello.get("home")),
            user=str(hello.get("user") or ""),
            is_root=bool(hello.get("root")),
            git=hello.get("git"),
            git_lfs=bool(hello.get("git_lfs")),
            shells=tuple(hello.get("shells") or ()),
            arch=str(hello.get("arch") or ""),
        )


def lease_facts(lease: Lease, pool: Pool, beside: Mapping[str, str]) -> LeaseFacts:
    """What rendering must know of a lease; `beside` is what is kept with the job's payload."""
    return LeaseFacts(
        lease_id=lease.lease_id,
        concurrent_id=lease.concurrent_id,
        project_concurrent_id=lease.project_concurrent_id,
        disposable=pool.limits.max_use_count == 1 and pool.limits.capacity_per_instance == 1,
        correlation_id=beside.get("request_id", ""),
    )
