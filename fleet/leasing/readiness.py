"""Makes a booted machine ready: first contact with the expected host key, the agent, a new host key, the ready command.

A machine that cannot be reached yet is tried again until its booting deadline; one that shows a wrong host key is
never trusted and goes at once; one whose ready command fails goes too, and its placement is blamed, not a job. A given
machine cannot be replaced by another: whatever is wrong with it, it is tried again until its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import structlog

from fleet.leasing.facts import facts_of
from fleet.leasing.leftovers import clear_leftovers
from fleet.leasing.rekeying import change_host_key
from fleet.machine.channel import AgentChannel
from fleet.machine.channels import Channels
from fleet.machine.errors import (
    AuthRefused,
    BadSshKey,
    BootstrapFailed,
    HostKeyMismatch,
    HostKeyUnknown,
    MachineError,
    NoPython,
)
from fleet.machine.reach import open_channel
from fleet.model.ids import ManagerId
from fleet.model.instance import Instance
from fleet.model.lifecycle import InstanceState
from fleet.sdk import Scope
from fleet.store import instances, managers, snapshots
from fleet.store.book import Book, Pool
from fleet.store.database import Store, Tx

log = structlog.get_logger(__name__)
HOPELESS = (HostKeyMismatch, HostKeyUnknown, BadSshKey, NoPython)
AGAIN_S = 0.5
AGAIN_LONGEST_S = 15.0
GRACE = timedelta(seconds=30)


class NotReady(NamedTuple):
    """What keeps a machine from being ready."""

    slug: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readied:
    """What one activation saw and did."""

    booting: int = 0
    handed_out: int = 0


@dataclass(slots=True, kw_only=True)
class Readiness:
    """The controller that makes machines ready."""

    store: Store
    book: Book
    me: ManagerId
    channels: Channels
    submit: Callable[..., bool]
    hint: Callable[..., None]

    def activate(self) -> Readied:
        """Hand each machine that is due to the lane of its instance."""
        owned = [name for name in self.book.owned if name in self.book.pools]
        if not owned:
            return Readied()
        states = [InstanceState.BOOTING, InstanceState.PREPARING]
        found, now = self.store.read(lambda tx: (instances.instances_in(tx, owned, states), tx.now))
        handed = 0
        for each in found:
            if each.due_at is not None and each.due_at > now:
                continue
            pool = self.book.pools[each.pool]
            limit = pool.settings.fleet.preparing_timeout.total_seconds()
            handed += self.submit(
                f"instance:{each.instance_id}",
                "ready",
                lambda each=each, pool=pool: self._ready(each, pool),
                timeout_s=limit + 60,
            )
        return Readied(booting=len(found), handed_out=handed)

    def _ready(self, instance: Instance, pool: Pool) -> None:
        epoch = self.book.owned.get(pool.name)
        if epoch is None:
            return
        try:
            channel = self.channels.open(
                instance.instance_id, lambda on_frame: open_channel(instance, pool, on_frame, deadline_s=60.0)
            )
        except MachineError as exc:
            self._unreached(instance, pool, epoch, exc)
            return
        if not self.store.write(lambda tx: self._contacted(tx, instance, pool, epoch, channel)):
            return
        try:
            change_host_key(self.store, channel, instance, pool, lambda tx: self._holds(tx, pool, epoch))
            clear_leftovers(self.store, channel, instance.instance_id)
            problem = self._prepare(channel, pool)
        except MachineError as exc:
            problem = NotReady("lost_while_prepared", f"the machine was lost while it was being prepared: {exc}")
        if problem is None:
            self.store.write(lambda tx: self._is_ready(tx, instance, pool, epoch, channel))
        else:
            log.warning("machine_not_ready", instance=instance.instance_id, slug=problem.slug, reason=problem.reason)
            self.channels.close(instance.instance_id)
            self._give_up(instance, pool, epoch, problem)
        self.hint("plan")

    def _unreached(self, instance: Instance, pool: Pool, epoch: int, error: MachineError) -> None:
        # early in a boot a login may be refused because the user is not there yet; a missing Python stays missing
        hopeless = isinstance(error, HOPELESS) and not isinstance(error, AuthRefused)
        level = log.warning if hopeless or isinstance(error, (AuthRefused, BootstrapFailed)) else log.info
        level("machine_not_reached", instance=instance.instance_id, attempt=instance.attempts + 1, error=str(error))
        problem = NotReady(error.slug if hopeless else "not_reached", str(error))
        if hopeless:
            self._give_up(instance, pool, epoch, problem)
            self.hint("plan")
        else:
            self._try_later(instance, pool, problem)

    def _give_up(self, instance: Instance, pool: Pool, epoch: int, problem: NotReady) -> None:
        if pool.limits.fixed_inventory:
            self._try_later(instance, pool, problem)
        else:
            self.store.write(lambda tx: self._fail(tx, instance, pool, epoch, slug=problem.slug, reason=problem.reason))

    def _try_later(self, instance: Instance, pool: Pool, problem: NotReady) -> None:
        wait = min(AGAIN_S * 2 ** min(instance.attempts, 6), AGAIN_LONGEST_S)

        def later(tx: Tx) -> None:
            instances.update(
                tx,
                instance.instance_id,
                due_at=tx.now + timedelta(seconds=wait),
                attempts=instance.attempts + 1,
            )
            if instance.attempts == 0:
                tx.journal(
                    "instance",
                    instance.instance_id,
                    problem.slug,
                    problem.reason,
                    pool=pool.name,
                    instance_id=instance.instance_id,
                )

        self.store.write(later)

    def _prepare(self, channel: AgentChannel, pool: Pool) -> NotReady | None:
        """Arm the dead-man and run the ready command; what is wrong, or None.

        Raises:
            MachineError: the machine was lost on the way.
        """
        command = pool.settings.instance_ready_command
        limit = pool.settings.fleet.preparing_timeout.total_seconds()
        channel.request("ping", 30.0, agent_timeout_s=pool.settings.fleet.agent_timeout.total_seconds())
        if not command:
            return None
        asked: dict[str, Any] = {"command": command, "timeout_s": limit, "shell": "sh"}
        reply = channel.request("run", limit + 10, **asked)
        code, output = reply.get("exit_code"), str(reply.get("output") or "").strip()
        if code == 0:
            return None
        how = f"did not end within {limit:g} s" if code is None else f"ended with exit code {code}"
        said = output[-500:] or "it printed nothing"
        return NotReady("ready_command_failed", f"instance_ready_command {how}: {said}")

    def _contacted(self, tx: Tx, instance: Instance, pool: Pool, epoch: int, channel: AgentChannel) -> bool:
        if not managers.holds_pool(tx, pool.name, self.me, epoch):
            return False
        if instance.state is InstanceState.PREPARING:
            return True
        return instances.move(
            tx,
            instance.instance_id,
            InstanceState.PREPARING,
            stimulus="contacted",
            reason=f"the agent answered (Python {channel.hello.get('python', '?')})",
            only_from=[InstanceState.BOOTING],
            # later than any step's own limit: the machine's own words are a better reason than a deadline
            state_by=tx.now + pool.settings.fleet.preparing_timeout + GRACE,
        )

    def _holds(self, tx: Tx, pool: Pool, epoch: int) -> bool:
        return managers.holds_pool(tx, pool.name, self.me, epoch)

    def _is_ready(self, tx: Tx, instance: Instance, pool: Pool, epoch: int, channel: AgentChannel) -> None:
        if not managers.holds_pool(tx, pool.name, self.me, epoch):
            return
        ready: dict[str, Any] = {
            "ready_at": tx.now,
            "idle_since": tx.now,
            "facts": facts_of(channel.hello),
            "unreachable_since": None,
        }
        instances.move(
            tx,
            instance.instance_id,
            InstanceState.READY,
            stimulus="ready",
            reason="the agent runs and the machine is prepared",
            only_from=[InstanceState.PREPARING],
            **ready,
        )
        # only now has the placement given what was asked of it: a machine that is made and never comes up is no success
        snapshots.forget_cool_downs(tx, pool.scopes_of(instance.placement))

    def _fail(self, tx: Tx, instance: Instance, pool: Pool, epoch: int, *, slug: str, reason: str) -> None:
        if not managers.holds_pool(tx, pool.name, self.me, epoch):
            return
        if instances.remove(tx, instance.instance_id, stimulus=slug, reason=reason) and not pool.limits.fixed_inventory:
            scope = pool.scope_key(instance.placement, Scope.PLACEMENT)
            snapshots.cool(tx, scope, reason)
