"""What is free once every waiting job has been matched, and what may cover the promises that polls hold.

In a preemptive pool, and in one of given machines, a poll may only count on a ready free slot. Elsewhere it may also
count on coming machines and on room for new ones, less what the jobs already waiting will use of that room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.model.ids import InstanceId
from fleet.model.snapshot import InstanceView
from fleet.planning.census import Census, Group
from fleet.planning.matching import Matching


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Free slots after matching.

    Attributes:
        left: of each instance.
        ready, ready_outdated: of ready instances that may get jobs.
        coming, coming_outdated: of instances on their way.
    """

    left: Mapping[InstanceId, int]
    ready: int
    ready_outdated: int
    coming: int
    coming_outdated: int

    def of(self, instance: InstanceView) -> int:
        """Free slots of one instance."""
        return self.left[instance.instance_id]


def take_stock(census: Census, matching: Matching) -> Stock:
    """Count what matching has left."""
    left = {
        instance_id: len(numbers) - matching.taken.get(instance_id, 0) for instance_id, numbers in census.free.items()
    }

    def total(group: Group) -> int:
        return sum(left[instance.instance_id] for instance in census.members(group))

    return Stock(
        left=left,
        ready=total(Group.FIT),
        ready_outdated=total(Group.OUTDATED),
        coming=total(Group.COMING),
        coming_outdated=total(Group.COMING_OUTDATED),
    )


def cover(stock: Stock, *, ready_only: bool, room: int, short: int) -> int:
    """Slots that polls may count on; `room` is what machines yet to be made could bring to others than `short` jobs."""
    ready = stock.ready + stock.ready_outdated
    if ready_only:
        return ready
    return ready + stock.coming + stock.coming_outdated + max(0, room - short)
