"""What a person may order of an instance: drain it, take that back, remove it, by force if need be.

Rule: an order is a change of rows like any other, with its reason in the journal, and goes through the same gates; only
`force` passes by the leases, which it ends as lost first (law 1). Acting on it is left to the rooms.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.model.ids import InstanceId
from fleet.model.lifecycle import INSTANCE, InstanceState
from fleet.runtime.rows import instance_id_of
from fleet.sdk import FleetError
from fleet.settings.pools import PoolSettings
from fleet.store import instances, leases, losing, managers, pools
from fleet.store.database import Tx

S = InstanceState
BY_HAND = "by_hand"


class NotFound(FleetError):
    """Nothing has this name."""

    slug = "not_found"


class OrderRefused(FleetError):
    """It cannot be done in the state that things are in."""

    slug = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an order did; `message` says it to the person."""

    instance_id: str
    message: str


def _found(tx: Tx, name: str) -> tuple[str, str, S]:
    instance_id = instance_id_of(tx, name)
    found = None if instance_id is None else instances.instance(tx, InstanceId(instance_id))
    if found is None:
        raise NotFound(f"there is no instance {name}: fleetctl instances lists them")
    return found.instance_id, found.pool, found.state


def drain(tx: Tx, name: str) -> Done:
    """No more jobs; the machine goes when its last job has ended.

    Raises:
        NotFound: there is no such instance.
        OrderRefused: it is not ready.
    """
    instance_id, _, state = _found(tx, name)
    if state is S.DRAINING:
        return Done(instance_id=instance_id, message=f"{instance_id} drains already")
    if state is not S.READY:
        raise OrderRefused(f"{instance_id} is {state}: only a ready instance can be drained; remove ends it")
    reason = "a person asked for it"
    instances.move(
        tx,
        instance_id,
        S.DRAINING,
        stimulus=BY_HAND,
        reason=reason,
        only_from=[S.READY],
        drain_reason=reason,
    )
    return Done(instance_id=instance_id, message=f"{instance_id} gets no more jobs, and goes when its last has ended")


def undrain(tx: Tx, name: str) -> Done:
    """Jobs again, for an instance that drains.

    Raises:
        NotFound: there is no such instance.
        OrderRefused: it does not drain any more.
    """
    instance_id, _, state = _found(tx, name)
    if state is S.READY:
        return Done(instance_id=instance_id, message=f"{instance_id} is ready already")
    if state is not S.DRAINING:
        raise OrderRefused(f"{instance_id} is {state}: only a draining instance can be brought back")
    instances.move(
        tx,
        instance_id,
        S.READY,
        stimulus=BY_HAND,
        reason="a person took the draining back",
        only_from=[S.DRAINING],
        drain_reason=None,
    )
    return Done(
        instance_id=instance_id,
        message=f"{instance_id} gets jobs again; what made it drain, if it still holds, makes it drain again",
    )


def remove(tx: Tx, name: str, *, force: bool) -> Done:
    """Delete the machine.

    Raises:
        NotFound: there is no such instance.
        OrderRefused: it runs jobs and `force` is not set, or its machine is given and never deleted.
    """
    instance_id, pool, state = _found(tx, name)
    if state in (S.DELETING, S.GONE):
        return Done(instance_id=instance_id, message=f"{instance_id} is {state} already")
    assert S.DELETING in INSTANCE[state], "every state but the last two may end"
    if _is_given(tx, pool):
        raise OrderRefused(
            f"the machine of {instance_id} is given, not made: drain it, or take the host out of the configuration"
        )
    held = leases.leases_of(tx, instance_id)
    if held and not force:
        raise OrderRefused(
            f"{instance_id} runs {len(held)} job(s): drain it, and it goes when they have ended; "
            "--force ends them as failed and removes it now"
        )
    if held:
        reason = f"a person removed it by force, with {len(held)} job(s) on it"
        losing.lose_machine(tx, instance_id, stimulus=BY_HAND, reason=reason)
    else:
        instances.remove(tx, instance_id, stimulus=BY_HAND, reason="a person removed it")
    return Done(instance_id=instance_id, message=f"{instance_id} is being deleted")


def _is_given(tx: Tx, pool: str) -> bool:
    row = next((each for each in pools.all_pools(tx) if each.pool == pool), None)
    return row is not None and PoolSettings.model_validate(row.settings).fixed_inventory


def sweep(tx: Tx, *, on: bool) -> str:
    """Let orphans be deleted, or not; returns what to tell."""
    managers.set_sweeping(tx, on, "a person confirmed it" if on else "a person asked for it")
    if on:
        return "machines of this store that no row knows are deleted again"
    return "machines of this store that no row knows are left alone until fleetctl store sweep on"
