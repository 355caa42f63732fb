"""Deletes the machines of instances that are `deleting`, again and again until the listing shows that they are gone.

What is deleted here has passed the gate of law 1 before: it is in `deleting`, and a lease can no longer be granted on
it. This room only asks; that a machine is gone is for the listing to say (`provisioning.observing`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from fleet.machine.channels import Channels
from fleet.model.ids import ManagerId
from fleet.model.instance import Instance
from fleet.model.lifecycle import InstanceState
from fleet.sdk import ProviderError
from fleet.store import instances, managers
from fleet.store.book import Book, Pool
from fleet.store.database import Store, Tx

log = structlog.get_logger(__name__)
AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """What one activation saw and did."""

    deleting: int = 0
    asked: int = 0


@dataclass(slots=True, kw_only=True)
class Reaper:
    """The controller that deletes machines."""

    store: Store
    book: Book
    me: ManagerId
    channels: Channels
    submit: Callable[..., bool]
    hint: Callable[..., None]
    draining: bool = field(default=False)

    def activate(self) -> Reaped:
        """Ask for the end of every machine whose time has come."""
        owned = [name for name in self.book.owned if name in self.book.pools]
        if not owned:
            return Reaped()
        found, now = self.store.read(lambda tx: (instances.instances_in(tx, owned, [InstanceState.DELETING]), tx.now))
        due: dict[str, list[Instance]] = defaultdict(list)
        for each in found:
            self.channels.close(each.instance_id)
            if each.machine_id is not None and (each.due_at is None or each.due_at <= now):
                due[each.pool].append(each)
        for name, batch in due.items():
            self._hand_out(self.book.pools[batch[0].pool], batch[:AT_ONCE], name)
        return Reaped(deleting=len(found), asked=sum(len(batch) for batch in due.values()))

    def _hand_out(self, pool: Pool, batch: list[Instance], name: str) -> None:
        if pool.provider is None or pool.info is None:
            return
        self.submit(
            f"provider:{pool.info.account}",
            f"delete:{name}",
            lambda: self._delete(pool, batch),
            timeout_s=pool.info.call_timeout_s,
            width=4,
        )

    def _delete(self, pool: Pool, batch: list[Instance]) -> None:
        assert pool.provider is not None
        epoch = self.book.owned.get(pool.name)
        if epoch is None:
            return
        self.store.write(lambda tx: _set_deadline(tx, pool, batch))
        machine_ids = [each.machine_id for each in batch if each.machine_id is not None]
        error = ""
        try:
            pool.provider.delete(machine_ids)
        except ProviderError as exc:
            error = str(exc)
            log.warning("delete_failed", pool=pool.name, machines=machine_ids[:5], slug=exc.slug, error=error)
        except Exception as exc:
            error = f"plugin {pool.settings.plugin} broke: {type(exc).__name__}: {exc}"
            log.exception("provider_broke", pool=pool.name, call="delete")
        self.store.write(lambda tx: self._note(tx, pool, epoch, batch, error))
        self.hint("observe")

    def _note(self, tx: Tx, pool: Pool, epoch: int, batch: list[Instance], error: str) -> None:
        if not managers.holds_pool(tx, pool.name, self.me, epoch):
            return
        again = tx.now + timedelta(seconds=pool.settings.deletion_retry_interval.total_seconds())
        for each in batch:
            instances.update(tx, each.instance_id, due_at=again, attempts=each.attempts + 1)
            if error and each.attempts == 0:
                tx.journal(
                    "instance",
                    each.instance_id,
                    "delete_failed",
                    error,
                    pool=each.pool,
                    instance_id=each.instance_id,
                )


def _set_deadline(tx: Tx, pool: Pool, batch: list[Instance]) -> None:
    """Until when a deletion must have ended: after it a lost machine's job is told to GitLab all the same."""
    for each in batch:
        if each.attempts == 0:
            instances.update(tx, each.instance_id, state_by=each.state_at + pool.settings.fleet.deleting_timeout)
