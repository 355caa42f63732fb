"""What a complete listing of an account makes of the rows of its pools.

    named by the listing      a request in doubt made this machine after all
    runs and has an address   creating -> booting
    absent, and deleting      -> gone; a given machine, which nobody deletes, at once
    absent otherwise          lost: its leases end, then it goes
    an orphan                 -> a row that is deleting (law 6)

What counts as absent and as an orphan is decided in `planning.lost` and `planning.orphans`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

import structlog

from fleet.model.ids import ManagerId
from fleet.model.instance import Instance
from fleet.model.lifecycle import ALIVE_INSTANCE, InstanceState
from fleet.planning import lost, orphans
from fleet.provisioning.creating import name_machines
from fleet.sdk import TAG_POOL, TAG_REQUEST, TAG_STORE, Machine, MachineState, PipeEndpoint, SshEndpoint
from fleet.store import instances, managers, pools
from fleet.store.book import Pool
from fleet.store.database import Tx
from fleet.store.losing import lose_machine

log = structlog.get_logger(__name__)
S = InstanceState


@dataclass(slots=True, kw_only=True)
class Listing:
    """One complete listing.

    Attributes:
        begun_at: by the store's clock, before the provider was asked.
        pools: the pools of this account that are ours, each with the epoch of our claim.
        suspects: what earlier listings showed that no row knew; `still_suspects` is for the next.
    """

    store_id: str
    begun_at: datetime
    machines: Mapping[str, Machine]
    pools: Sequence[tuple[Pool, int]]
    me: ManagerId
    suspects: Mapping[str, orphans.Suspect]
    still_suspects: Mapping[str, orphans.Suspect] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)


def note_listing(tx: Tx, seen: Listing) -> int:
    """Bring the rows up to the listing; returns how many changed."""
    ours = [pool for pool, epoch in seen.pools if managers.holds_pool(tx, pool.name, seen.me, epoch)]
    by_name = {pool.name: pool for pool in ours}
    changed = _name_doubtful(tx, seen)
    rows = instances.instances_in(tx, by_name, ALIVE_INSTANCE)
    for pool in ours:
        changed += _look_at_pool(tx, pool, [row for row in rows if row.pool == pool.name], seen)
        if pool.limits.fixed_inventory:
            changed += _take_inventory(tx, pool, seen, {row.machine_id for row in rows})
    created = [pool for pool in ours if not pool.limits.fixed_inventory]
    if created:
        changed += _sweep(tx, created, seen)
    return changed


def _name_doubtful(tx: Tx, seen: Listing) -> int:
    made: dict[str, list[str]] = {}
    for machine in seen.machines.values():
        if machine.tags.get(TAG_STORE) == seen.store_id and machine.state is not MachineState.GONE:
            made.setdefault(machine.tags.get(TAG_REQUEST, ""), []).append(machine.machine_id)
    return sum(name_machines(tx, request, sorted(ids), "found in the listing") for request, ids in made.items())


def _look_at_pool(tx: Tx, pool: Pool, rows: Sequence[Instance], seen: Listing) -> int:
    assert pool.info is not None
    lag = timedelta(seconds=pool.info.visibility_lag_s)
    by_id = {row.instance_id: row for row in rows}
    named = [row for row in rows if row.machine_id is not None and row.state is not S.DELETING]
    known = [
        lost.Known(
            instance_id=row.instance_id,
            machine_id=str(row.machine_id),
            known_at=_known_at(row),
            missed=row.missed_listings,
        )
        for row in named
    ]
    judged = lost.look(known, seen.machines, begun_at=seen.begun_at, lag=lag)
    changed = 0
    for absent in judged.absent:
        log.warning("machine_vanished", instance=absent.instance_id, reason=absent.reason)
        changed += lose_machine(tx, absent.instance_id, stimulus=absent.slug, reason=absent.reason)
    for instance_id, machine in judged.seen.items():
        changed += _present(tx, by_id[instance_id], pool, machine)
    for instance_id, missed in judged.missed.items():
        instances.update(tx, instance_id, missed_listings=missed)
    for row in rows:
        if row.state is S.DELETING and pool.limits.fixed_inventory:
            changed += _gone(tx, row, "a given machine is let go and not deleted")
        elif row.state is S.DELETING:
            changed += _look_at_deleting(tx, row, seen, lag)
    return changed


def _known_at(row: Instance) -> datetime:
    """When the provider named its machine: a slow answer must not make a new machine look like a missing one."""
    return row.state_at if row.state is S.CREATING else row.created_at


def _look_at_deleting(tx: Tx, row: Instance, seen: Listing, lag: timedelta) -> int:
    if row.machine_id is not None:
        machine = seen.machines.get(row.machine_id)
        may_lag = row.created_at if row.observed else row.state_at
        if machine is None and seen.begun_at < may_lag + lag:
            return 0
        gone = machine is None or machine.state is MachineState.GONE
        return _gone(tx, row, "the provider no longer has it") if gone else 0
    # a request that failed: only a listing that must show what it made, and does not, proves that nothing is there
    made = [
        machine.machine_id
        for machine in seen.machines.values()
        if machine.tags.get(TAG_REQUEST) == row.request_id and machine.state is not MachineState.GONE
    ]
    taken = instances.machines_of(tx, row.request_id)
    fresh = [machine_id for machine_id in sorted(made) if machine_id not in taken]
    if fresh:
        observed = seen.machines[fresh[0]].state.value
        instances.update(tx, row.instance_id, machine_id=fresh[0], observed=observed, due_at=None)
        return 1
    if seen.begun_at < row.state_at + lag:
        return 0
    return _gone(tx, row, "the listing shows that nothing was made")


def _gone(tx: Tx, row: Instance, reason: str) -> int:
    return instances.move(tx, row.instance_id, S.GONE, stimulus="confirmed", reason=reason, gone_at=tx.now)


def _present(tx: Tx, row: Instance, pool: Pool, machine: Machine) -> int:
    if row.observed != machine.state.value or row.missed_listings:
        instances.update(tx, row.instance_id, observed=machine.state.value, observed_at=tx.now, missed_listings=0)
    reachable = machine.address_internal or machine.address_external or machine.endpoint
    if row.state is not S.CREATING or machine.state is not MachineState.RUNNING or not reachable:
        return 0
    instances.update(tx, row.instance_id, address=_address(tx, machine))
    if machine.host_key and not row.host_keys:
        instances.update(tx, row.instance_id, host_keys=json.dumps([machine.host_key]))
    return instances.move(
        tx,
        row.instance_id,
        S.BOOTING,
        stimulus="running",
        reason=f"the provider says that {machine.machine_id} runs",
        state_by=tx.now + pool.settings.fleet.booting_timeout,
    )


def _address(tx: Tx, machine: Machine) -> str:
    """The way in as the row keeps it; `machine.reach` reads it."""
    address = {
        "internal": machine.address_internal,
        "external": machine.address_external,
        "port": machine.port,
        "user": machine.user,
    }
    secret = {}
    match machine.endpoint:
        case PipeEndpoint(home=home):
            address["pipe_home"] = home
        case SshEndpoint():
            secret["endpoint"] = asdict(machine.endpoint)
    return instances.sealed_address(tx, {name: value for name, value in address.items() if value}, secret)


def _take_inventory(tx: Tx, pool: Pool, seen: Listing, known: set[str | None]) -> int:
    """Machines that are given become instances without having been asked for."""
    added = 0
    for machine_id, machine in sorted(seen.machines.items()):
        if machine.tags.get(TAG_POOL, pool.name) != pool.name or machine_id in known:
            continue
        if pool.retired:
            continue
        instances.add(
            tx,
            instance_id=f"i-{secrets.token_hex(6)}",
            pool=pool.name,
            request_id=f"inventory-{machine_id}",
            placement=machine.placement or "default",
            settings_version=pool.limits.settings_version,
            reason="the configuration gives this machine",
            state=S.CREATING,
            machine_id=machine_id,
        )
        added += 1
    return added


def _sweep(tx: Tx, ours: Sequence[Pool], seen: Listing) -> int:
    sweeping, why_not = managers.may_sweep(tx)
    lag = timedelta(seconds=max(pool.info.visibility_lag_s for pool in ours if pool.info is not None))
    judged = orphans.sweep(
        seen.machines.values(),
        store_id=seen.store_id,
        begun_at=seen.begun_at,
        lag=lag,
        known_machines=instances.living_machines(tx),
        open_requests=pools.open_request_ids(tx),
        suspects=seen.suspects,
        sweeping=sweeping,
    )
    seen.still_suspects = judged.suspects
    for orphan in judged.report:
        if orphan.machine_id not in seen.reported:
            seen.reported.add(orphan.machine_id)
            log.warning("machine_reported", machine=orphan.machine_id, reason=orphan.reason, sweeping_off=why_not)
    by_name = {str(pool.name): pool for pool in ours}
    for orphan in judged.delete:
        observed = seen.machines[orphan.machine_id].state
        _sweep_one(tx, orphan, by_name.get(orphan.pool, ours[0]), observed)
    return len(judged.delete)


def _sweep_one(tx: Tx, orphan: orphans.Orphan, pool: Pool, observed: MachineState) -> None:
    instance_id = f"i-{secrets.token_hex(6)}"
    log.warning("orphan_found", machine=orphan.machine_id, pool=pool.name, instance=instance_id)
    instances.add(
        tx,
        instance_id=instance_id,
        pool=pool.name,
        request_id=orphan.request or "orphan",
        placement="unknown",
        settings_version=pool.limits.settings_version,
        reason=f"an orphan: {orphan.reason}",
        state=S.DELETING,
        machine_id=orphan.machine_id,
        end_reason="orphan",
        observed=observed.value,
    )
