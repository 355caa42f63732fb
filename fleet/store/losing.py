"""A machine is lost: its leases end first, then it is sent to its end.

What the leases' jobs make of it is for their owners to read from the rows: a job whose lease is `lost` ends as
`runner_system_failure`, but GitLab is told only when the machine is gone, or its deleting deadline has passed.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from fleet.model.lifecycle import InstanceState, JobState, LeaseState
from fleet.store import instances, leases
from fleet.store.database import Tx
from fleet.store.jobs import move_job
from fleet.store.tables import instances as table
from fleet.store.tables import jobs


def lose_machine(tx: Tx, instance_id: str, *, stimulus: str, reason: str) -> bool:
    """End the leases of a machine as lost, bring its jobs where they belong, and remove it; False when it was."""
    row = tx.sql.execute(
        sa.select(table.c.state).where(table.c.instance_id == instance_id).with_for_update()
    ).one_or_none()
    if row is None or row.state in (InstanceState.DELETING.value, InstanceState.GONE.value):
        return False
    for lease in leases.leases_of(tx, instance_id):
        leases.move_lease(tx, lease.lease_id, LeaseState.LOST, stimulus=stimulus, reason=reason)
        # before the start the job may go elsewhere; afterwards its owner reports the loss
        avoid_machine(tx, lease.job, instance_id, reason)
    return instances.remove(tx, instance_id, stimulus=stimulus, reason=reason)


def avoid_machine(tx: Tx, job_key: str, instance_id: str, reason: str) -> bool:
    """Send a job back to wait for another machine; False when its start may have reached the agent, or it has ended."""
    row = tx.sql.execute(
        sa.select(jobs.c.avoid, jobs.c.moves, jobs.c.pool, jobs.c.runner_key, jobs.c.owner, jobs.c.prologue).where(
            jobs.c.job_key == job_key
        )
    ).one_or_none()
    if row is None or row.prologue is not None:
        return False
    avoid = sorted({*json.loads(row.avoid), instance_id})
    moved = move_job(
        tx,
        job_key,
        None,
        JobState.WAITING,
        stimulus="moved",
        reason=f"{instance_id} cannot run it: {reason}",
        only_from=[JobState.STARTING],
        lease_id=None,
        avoid=json.dumps(avoid),
        moves=row.moves + 1,
    )
    if moved:
        leases.owe_again(tx, pool=row.pool, runner_key=row.runner_key, manager_id=row.owner, job_key=job_key)
    return moved


def change_machine(tx: Tx, job_key: str, epoch: int, lease_id: str, instance_id: str, *, reason: str) -> bool:
    """The agent refused the job, or was never told of it: the machine is blamed and the job looks for another.

    The caller knows for certain that the job did not start: the agent said so, or no start was ever sent.
    """
    held = tx.sql.execute(sa.select(jobs.c.epoch, jobs.c.lease_id).where(jobs.c.job_key == job_key)).one_or_none()
    if held is None or held.epoch != epoch or held.lease_id != lease_id:
        return False
    tx.sql.execute(sa.update(jobs).where(jobs.c.job_key == job_key).values(prologue=None))
    instances.blame(tx, instance_id, reason)
    leases.move_lease(tx, lease_id, LeaseState.CLEANING, stimulus="refused", reason=reason)
    return avoid_machine(tx, job_key, instance_id, reason)
