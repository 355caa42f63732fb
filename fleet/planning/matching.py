"""Which waiting job gets which slot, and which one may count on a machine that is on its way.

The oldest job chooses first. Slots are offered fullest machine first, so that whole machines become idle; among equally
full ones the one used last, so that the longest idle may go; slots of outdated machines come after all others. A job
never gets an instance that failed it before, however many free slots that has.

What is left over is matched with coming machines, the next to be ready first. This promises no particular machine:
it only counts, so that a job waiting for a booting machine does not have another one made. Jobs that avoid something
choose first there, because they are the ones that cannot take any slot.

Both passes walk a queue of slots once: linear, but for the few slots that a job has to step over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fleet.model.ids import InstanceId
from fleet.model.lifecycle import InstanceState
from fleet.model.plan import Assign, Because
from fleet.model.snapshot import InstanceView, WaitingJob
from fleet.planning import wording
from fleet.planning.census import Census, Group

_PROGRESS = (
    InstanceState.PREPARING,
    InstanceState.STARTING,
    InstanceState.BOOTING,
    InstanceState.CREATING,
    InstanceState.REQUESTED,
)


class Slot(NamedTuple):
    """One free slot of one instance; a tuple because there are as many as a pool has slots."""

    instance: InstanceView
    number: int
    outdated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Who got what.

    Attributes:
        assigns: oldest job first.
        expected: jobs that may count on a coming machine, with it.
        unmatched: jobs for which nothing is there nor coming, oldest first.
        taken: slots given away (now or when it is ready) of each instance.
    """

    assigns: tuple[Assign, ...]
    expected: tuple[tuple[WaitingJob, InstanceView], ...]
    unmatched: tuple[WaitingJob, ...]
    taken: Mapping[InstanceId, int]


def match(census: Census, waiting: Iterable[WaitingJob]) -> Matching:
    """Give ready slots to waiting jobs, and coming slots to the expectation of the rest."""
    taken: dict[InstanceId, int] = {}
    slots = _ready_slots(census)
    assigns, without = [], []
    for job in sorted(waiting, key=_age):
        slot = _take(slots, job.avoid)
        if slot is None:
            without.append(job)
            continue
        instance_id = slot.instance.instance_id
        taken[instance_id] = taken.get(instance_id, 0) + 1
        assigns.append(_assign(job, slot))
    slots = _coming_slots(census)
    expected, unmatched = [], []
    for job in sorted(without, key=lambda j: (-len(j.avoid), *_age(j))):
        slot = _take(slots, job.avoid)
        if slot is None:
            unmatched.append(job)
            continue
        instance_id = slot.instance.instance_id
        taken[instance_id] = taken.get(instance_id, 0) + 1
        expected.append((job, slot.instance))
    return Matching(
        assigns=tuple(assigns),
        expected=tuple(expected),
        unmatched=tuple(sorted(unmatched, key=_age)),
        taken=taken,
    )


def _age(job: WaitingJob) -> tuple[float, int, str]:
    return (job.received_at.timestamp(), job.gitlab_job_id, job.job)


def _ready_slots(census: Census) -> deque[Slot]:
    def fullest(instance: InstanceView) -> tuple[int, float, str]:
        since = instance.idle_since or instance.state_at
        return (-len(instance.used_slots), -since.timestamp(), instance.instance_id)

    return deque(
        Slot(instance=instance, number=number, outdated=group is Group.OUTDATED)
        for group in (Group.FIT, Group.OUTDATED)
        for instance in sorted(census.members(group), key=fullest)
        for number in census.free[instance.instance_id]
    )


def _coming_slots(census: Census) -> deque[Slot]:
    # The outdated first: were they last, a machine just made for the idle target would be taken for their job,
    # and the next plan would make one more.
    def soonest(instance: InstanceView) -> tuple[int, float, str]:
        return (_PROGRESS.index(instance.state), instance.state_at.timestamp(), instance.instance_id)

    return deque(
        Slot(instance=instance, number=number, outdated=group is Group.COMING_OUTDATED)
        for group in (Group.COMING_OUTDATED, Group.COMING)
        for instance in sorted(census.members(group), key=soonest)
        for number in census.free[instance.instance_id]
    )


def _take(slots: deque[Slot], avoid: frozenset[InstanceId]) -> Slot | None:
    """The first slot that is not avoided; those stepped over stay where they are."""
    if not avoid:
        return slots.popleft() if slots else None
    aside: list[Slot] = []
    found = None
    while slots and found is None:
        slot = slots.popleft()
        if slot.instance.instance_id in avoid:
            aside.append(slot)
        else:
            found = slot
    slots.extendleft(reversed(aside))
    return found


def _assign(job: WaitingJob, slot: Slot) -> Assign:
    if slot.outdated:
        slug, reason = Because.LAST_RESORT, "no up-to-date machine has a free slot; this one may still serve"
    else:
        leases = wording.counted(len(slot.instance.used_slots), "lease")
        slug, reason = Because.FULLEST, f"the fullest machine with a free slot ({leases})"
    return Assign(job=job.job, instance_id=slot.instance.instance_id, slot=slot.number, slug=slug, reason=reason)
