"""Why each job that has no slot after a plan is still waiting, in a sentence for `fleetctl explain`."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.model.plan import Because, Wait
from fleet.model.policy import PoolLimits
from fleet.model.snapshot import InstanceView, WaitingJob
from fleet.planning import wording
from fleet.planning.growth import Growth, slots_per_machine
from fleet.planning.matching import Matching


def explain_waits(matching: Matching, growth: Growth, limits: PoolLimits) -> tuple[Wait, ...]:
    """One reason for each job without a slot, oldest first within each kind of reason."""
    return (
        *(_for_coming(job, instance) for job, instance in matching.expected),
        *_for_the_rest(matching.unmatched, growth, limits),
    )


def _for_coming(job: WaitingJob, instance: InstanceView) -> Wait:
    since = wording.instant(instance.state_at)
    reason = f"waits for machine {instance.instance_id}, which is {instance.state} since {since}"
    return Wait(job=job.job, slug=Because.MACHINE_PENDING, reason=reason + _avoiding(job), until=instance.state_by)


def _for_the_rest(jobs: tuple[WaitingJob, ...], growth: Growth, limits: PoolLimits) -> Iterator[Wait]:
    """The oldest get the machines this plan makes; what kept it from making more keeps the others."""
    places = [create.placement for create in growth.creates for _ in range(create.count * slots_per_machine(limits))]
    for job, place in zip(jobs, places, strict=False):
        reason = f"a machine is being asked for in placement {place}"
        yield Wait(job=job.job, slug=Because.MACHINE_REQUESTED, reason=reason + _avoiding(job))
    hold = growth.hold
    if hold is None:
        return
    for job in jobs[len(places) :]:
        yield Wait(job=job.job, slug=hold.slug, reason=hold.reason + _avoiding(job), until=hold.until)


def _avoiding(job: WaitingJob) -> str:
    return f" (not again on {', '.join(sorted(job.avoid))}, where it failed to start)" if job.avoid else ""
