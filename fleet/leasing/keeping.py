"""Keeps a channel to every machine that has or may get a job, and to no other; and says when a machine is lost.

A channel that breaks is opened again, with patience: the jobs go on without it. A machine that cannot be reached for
`unreachable_timeout`, and not by this process either, is lost. Then its leases end first, and only then may it be
removed (law 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from fleet.machine.channels import Channels
from fleet.machine.errors import AgentError, HostKeyMismatch, MachineError
from fleet.machine.reach import open_channel
from fleet.model.ids import ManagerId
from fleet.model.instance import Instance
from fleet.model.lifecycle import InstanceState
from fleet.store import instances, managers
from fleet.store.book import Book, Pool
from fleet.store.database import Store, Tx
from fleet.store.losing import lose_machine

log = structlog.get_logger(__name__)
PING_S = 60.0
AGAIN_LONGEST_S = 15.0
MAKING = (InstanceState.BOOTING, InstanceState.PREPARING)  # `readiness` opens their channels
SERVING = (InstanceState.READY, InstanceState.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one activation saw and did."""

    needed: int = 0
    reopened: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Tries:
    count: int = 0
    due_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Keeper:
    """The controller that keeps channels open."""

    store: Store
    book: Book
    me: ManagerId
    channels: Channels
    submit: Callable[..., bool]
    hint: Callable[..., None]
    _tries: dict[str, _Tries] = field(default_factory=dict)

    def activate(self) -> Kept:
        """Open what is closed, ping what is quiet, and give up what is lost."""
        # before the rows are read: whoever opened one of these found its machine in the rows already
        standing = self.channels.instances()
        found, now = self.store.read(lambda tx: (self._needed(tx, [*MAKING, *SERVING]), tx.now))
        for idle in standing - {each.instance_id for each in found}:
            self._let_go(idle)
        needed = [each for each in found if each.state in SERVING]
        reopened = lost = 0
        for each in needed:
            pool = self.book.pools[each.pool]
            if self.channels.get(each.instance_id) is not None:
                if each.unreachable_since is not None:
                    self._reached(each)
                continue
            limit = pool.settings.fleet.unreachable_timeout
            tries = self._tries.setdefault(each.instance_id, _Tries())
            is_late = each.unreachable_since is not None and now - each.unreachable_since > limit
            if is_late and tries.count and each.pool in self.book.owned:  # it may be back since a manager was stopped
                lost += self._lose(each, limit)
                continue
            if tries.due_at is None or tries.due_at <= self.store.clock():
                reopened += self._hand_out(each, pool)
        for gone in set(self._tries) - {each.instance_id for each in needed}:
            del self._tries[gone]
        self._ping()
        return Kept(needed=len(needed), reopened=reopened, lost=lost)

    def _needed(self, tx: Tx, states: list[InstanceState]) -> list[Instance]:
        """Machines of our pools, and machines of others' pools that run jobs of ours."""
        found = instances.instances_in(tx, list(self.book.pools), states)
        ours = instances.with_leases_of(tx, self.me)
        return [
            each
            for each in found
            if each.pool in self.book.pools and (each.pool in self.book.owned or each.instance_id in ours)
        ]

    def _let_go(self, instance_id: str) -> None:
        """Another manager sees to this machine now, or it is gone."""
        self.submit(f"instance:{instance_id}", "close", lambda: self.channels.close(instance_id), timeout_s=60)

    def _hand_out(self, instance: Instance, pool: Pool) -> bool:
        return self.submit(
            f"instance:{instance.instance_id}", "reopen", lambda: self._open(instance, pool), timeout_s=120
        )

    def _open(self, instance: Instance, pool: Pool) -> None:
        tries = self._tries.setdefault(instance.instance_id, _Tries())
        try:
            self.channels.open(
                instance.instance_id, lambda on_frame: open_channel(instance, pool, on_frame, deadline_s=60.0)
            )
        except MachineError as error:
            problem = error
        else:
            self._tries.pop(instance.instance_id, None)
            self._reached(instance)
            self.hint("execute")
            return
        tries.count += 1
        wait = timedelta(seconds=min(0.5 * 2 ** min(tries.count, 6), AGAIN_LONGEST_S))
        tries.due_at = self.store.clock() + wait  # our own time: what only we remember must not wait for a set clock
        self.store.write(lambda tx: self._unreached(tx, instance, problem))

    def _unreached(self, tx: Tx, instance: Instance, error: MachineError) -> None:
        if instance.unreachable_since is None:
            log.warning("machine_unreachable", instance=instance.instance_id, error=str(error))
            instances.update(tx, instance.instance_id, unreachable_since=tx.now)
            tx.journal(
                "instance",
                instance.instance_id,
                "unreachable",
                str(error),
                pool=instance.pool,
                instance_id=instance.instance_id,
            )
        if isinstance(error, HostKeyMismatch):
            instances.blame(tx, instance.instance_id, str(error))

    def _reached(self, instance: Instance) -> None:
        def back(tx: Tx) -> None:
            instances.update(tx, instance.instance_id, unreachable_since=None)
            tx.journal(
                "instance",
                instance.instance_id,
                "reached",
                "its agent answers again",
                pool=instance.pool,
                instance_id=instance.instance_id,
            )

        if instance.unreachable_since is not None:
            self.store.write(back)

    def _lose(self, instance: Instance, limit: timedelta) -> int:
        reason = f"the machine was unreachable for {limit.total_seconds():g} s"
        epoch = self.book.owned.get(instance.pool)

        def lose(tx: Tx) -> bool:
            # the rows were read a while ago, if we were stopped since: another manager may have reached the machine
            if epoch is None or not managers.holds_pool(tx, instance.pool, self.me, epoch):
                return False
            row = instances.instance(tx, instance.instance_id)
            if row is None or row.unreachable_since is None or tx.now - row.unreachable_since <= limit:
                return False
            return lose_machine(tx, instance.instance_id, stimulus="unreachable", reason=reason)

        done = self.store.write(lose)
        if done:
            log.error("machine_lost", instance=instance.instance_id, reason=reason)
            self.channels.close(instance.instance_id)
            self.hint("execute", "plan", "reap")
        return int(done)

    def _ping(self) -> None:
        for instance_id in self.channels.due_for_ping(PING_S):
            self.submit(f"instance:{instance_id}", "ping", lambda i=instance_id: self._ping_one(i), timeout_s=60)

    def _ping_one(self, instance_id: str) -> None:
        channel = self.channels.get(instance_id)
        row = self.store.read(lambda tx: instances.instance(tx, instance_id))  # type: ignore[arg-type]
        if channel is None or row is None or row.pool not in self.book.pools:
            return
        timeout = self.book.pools[row.pool].settings.fleet.agent_timeout.total_seconds()
        try:
            channel.note_pulse(channel.request("ping", 30.0, agent_timeout_s=timeout))
        except AgentError as exc:
            log.warning("ping_refused", instance=instance_id, error=str(exc))
        except MachineError as exc:
            log.warning("ping_failed", instance=instance_id, error=str(exc))
            channel.close()  # it stands but does not answer: the next activation opens another
