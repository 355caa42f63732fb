"""Keeps the disks of machines that live long from filling up.

A machine is *low* when one of the disks that its jobs fill has less room than `disk_low_watermark`; its agent is then
asked to tidy up to `disk_high_watermark`, in a lane of its own, so that no job waits for it. Asked again only when that
brought something, when a job has ended since, or after a pause that doubles. A machine is *full* below `disk_reserve`:
the planner gives it no further slot until there is room, and neither drains nor blames it.

Which things may go is the agent's to know; machines that serve one job in their life are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from fleet.machine.channel import AgentChannel
from fleet.machine.channels import Channels
from fleet.machine.errors import AgentError, MachineError
from fleet.model.ids import ManagerId
from fleet.model.instance import Instance
from fleet.model.lifecycle import InstanceState
from fleet.settings.pools import PoolKind
from fleet.settings.sizes import Room, room_of
from fleet.store import instances
from fleet.store.book import Book, Pool
from fleet.store.database import Store, Tx

log = structlog.get_logger(__name__)
TIDY_S = 900.0
AGAIN = timedelta(seconds=60)
AGAIN_LONGEST = timedelta(minutes=30)
SERVING = (InstanceState.READY, InstanceState.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """What one activation saw and did."""

    seen: int = 0
    low: int = 0
    full: int = 0
    handed_out: int = 0


class Watcher(Protocol):
    """Who counts."""

    def tidied(self, pool: str, outcome: str, removed: Mapping[str, int], freed_bytes: Mapping[str, int]) -> None:
        """A machine was tidied, or refused: `done`, `nothing_to_remove`, `failed`."""

    def least_free(self, free_bytes: Mapping[str, int]) -> None:
        """The room on the fullest disk of each pool's machines."""


@dataclass(slots=True)
class _Turn:
    """What is remembered of one low machine."""

    due_at: datetime | None = None
    wait: timedelta = AGAIN
    leases: int = 0


@dataclass(slots=True, kw_only=True)
class Tidier:
    """The controller that has machines tidied."""

    store: Store
    book: Book
    me: ManagerId
    channels: Channels
    submit: Callable[..., bool]
    hint: Callable[..., None]
    watcher: Watcher
    _turns: dict[str, _Turn] = field(default_factory=dict)

    def activate(self) -> Tidied:
        """Look at the room that each machine last told of."""
        owned = [name for name in self.book.owned if name in self.book.pools]
        found = self.store.read(lambda tx: instances.instances_in(tx, owned, SERVING)) if owned else []
        seen = low = full = handed = 0
        least: dict[str, int] = {}
        for each in found:
            channel = self.channels.get(each.instance_id)
            disks = [] if channel is None else disks_of(channel)
            if channel is None or not disks:
                continue
            pool = self.book.pools[each.pool]
            seen += 1
            least[each.pool] = min(
                [disk["free_bytes"] for disk in disks] + [least.get(each.pool, disks[0]["free_bytes"])]
            )
            full += self._look_at_reserve(each, pool, disks)
            if shortage(disks, room_of(pool.settings.fleet.disk_low_watermark)) is None or is_disposable(pool):
                self._turns.pop(each.instance_id, None)
                continue
            low += 1
            handed += self._hand_out(each, pool, channel)
        for gone in set(self._turns) - {each.instance_id for each in found}:
            del self._turns[gone]
        self.watcher.least_free(least)
        return Tidied(seen=seen, low=low, full=full, handed_out=handed)

    def _look_at_reserve(self, instance: Instance, pool: Pool, disks: list[dict[str, Any]]) -> bool:
        """Keep jobs from a machine without room, and only as long as it has none."""
        said = pool.settings.fleet.disk_reserve
        short = shortage(disks, room_of(said))
        if (short is None) == (instance.no_room is None):
            return short is not None
        reason = (
            None
            if short is None
            else f"only {short['free_bytes'] >> 20} MiB are free in {short['path']}, less than disk_reserve ({said})"
        )
        if reason is not None:
            log.warning("machine_full", instance=instance.instance_id, reason=reason)
        self.store.write(lambda tx: self._set_full(tx, instance, reason))
        self.hint("plan")
        return reason is not None

    def _set_full(self, tx: Tx, instance: Instance, reason: str | None) -> None:
        instances.update(tx, instance.instance_id, no_room=reason)
        told = reason or "there is room on its disks again"
        stimulus = "has_room" if reason is None else "full"
        tx.journal(
            "instance",
            instance.instance_id,
            stimulus,
            told,
            pool=instance.pool,
            instance_id=instance.instance_id,
        )

    def _hand_out(self, instance: Instance, pool: Pool, channel: AgentChannel) -> bool:
        turn = self._turns.setdefault(instance.instance_id, _Turn())
        job_ended, turn.leases = instance.leases < turn.leases, instance.leases
        if turn.due_at is not None and turn.due_at > self.store.clock() and not job_ended:
            return False
        return self.submit(
            f"tidy:{instance.instance_id}",
            "tidy",
            lambda: self._tidy(instance, pool, channel),
            timeout_s=TIDY_S + 60,
        )

    def _tidy(self, instance: Instance, pool: Pool, channel: AgentChannel) -> None:
        settings = pool.settings.fleet
        images = settings.prune_images
        try:
            reply = channel.request(
                "tidy",
                TIDY_S + 30,
                low=room_of(settings.disk_low_watermark).as_frame(),
                high=room_of(settings.disk_high_watermark).as_frame(),
                prune_images=pool.settings.kind is PoolKind.AUTOSCALED if images is None else images,
                timeout_s=TIDY_S,
            )
        except AgentError as exc:
            log.warning("tidy_failed", instance=instance.instance_id, error=str(exc))
            self._again(instance, brought_something=False)
            self.watcher.tidied(pool.name, "failed", {}, {})
            return
        except MachineError as exc:
            log.info("tidy_postponed", instance=instance.instance_id, error=str(exc))
            return
        channel.note_pulse(reply)
        removed, freed_bytes = dict(reply.get("removed") or {}), dict(reply.get("freed_bytes") or {})
        for problem in reply.get("problems") or []:
            log.warning("tidy_incomplete", instance=instance.instance_id, problem=problem)
        self._again(instance, brought_something=bool(removed))
        self.watcher.tidied(pool.name, "done" if removed else "nothing_to_remove", removed, freed_bytes)
        if removed:
            told = wording(removed, sum(freed_bytes.values()))
            log.info("machine_tidied", instance=instance.instance_id, removed=removed, freed_bytes=freed_bytes)
            self.store.write(
                lambda tx: tx.journal(
                    "instance",
                    instance.instance_id,
                    "tidied",
                    told,
                    pool=instance.pool,
                    instance_id=instance.instance_id,
                )
            )
        self.hint("tidy")

    def _again(self, instance: Instance, *, brought_something: bool) -> None:
        turn = self._turns.setdefault(instance.instance_id, _Turn())
        turn.wait = AGAIN if brought_something else min(turn.wait * 2, AGAIN_LONGEST)
        turn.due_at = self.store.clock() + turn.wait


def disks_of(channel: AgentChannel) -> list[dict[str, Any]]:
    """The disks that an agent last told of; an older agent tells none."""
    return [disk for disk in channel.pulse.get("disks") or [] if disk.get("size_bytes")]


def shortage(disks: list[dict[str, Any]], wanted: Room) -> dict[str, Any] | None:
    """The fullest of the disks that have less room than wanted."""
    short = [disk for disk in disks if disk["free_bytes"] < wanted.of(disk["size_bytes"])]
    return min(short, key=lambda disk: disk["free_bytes"], default=None)


def is_disposable(pool: Pool) -> bool:
    """Whether a machine of this pool serves one job in its life."""
    return pool.limits.max_use_count == 1 and pool.limits.capacity_per_instance == 1


def wording(removed: Mapping[str, int], freed_bytes: int) -> str:
    """For the journal."""
    names = {"build": "project directories", "cache": "cache archives", "volume": "cache volumes", "image": "images",
             "container": "stopped containers", "layer": "loose layers"}  # fmt: skip
    counts = ", ".join(f"{names.get(kind, kind)}: {count}" for kind, count in sorted(removed.items()))
    return f"its disk was low; used least lately and removed: {counts} ({freed_bytes >> 20} MiB)"
