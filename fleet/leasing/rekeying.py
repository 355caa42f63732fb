"""Changes a machine's SSH host key at first contact, so that what a job can read in the user data is worthless.

The first host key of a machine stands in its user data, where any job may find it. So a second pair is made; its public
half is committed beside the first one, the agent installs it, and a connection that accepts nothing else proves it;
only then is the first one forgotten. Between any two of these steps either key is accepted, so a crash locks nobody
out: the next manager to make the machine ready begins again, with a pair of its own.

It is done where the key was handed over in the user data and the agent is root. Elsewhere, and where it does not
succeed, the machine keeps its key: the reason is logged, and jobs go on.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable

import structlog

from fleet.machine.channel import AgentChannel
from fleet.machine.errors import AgentError, MachineError
from fleet.machine.keys import make_key_pair
from fleet.machine.reach import target_for
from fleet.machine.ssh import connect
from fleet.machine.target import SshTarget
from fleet.model.instance import Instance
from fleet.store import instances
from fleet.store.book import Pool
from fleet.store.database import Store, Tx

log = structlog.get_logger(__name__)
INSTALL_S = 30.0
PROOF_S = 15.0
LOOK_S = 0.2
UNTOUCHED = ("not_root", "bad_frame")  # the agent refused before it wrote anything


def change_host_key(
    store: Store, channel: AgentChannel, instance: Instance, pool: Pool, holds: Callable[[Tx], bool]
) -> bool:
    """Give the machine a host key that only we know; True when it shows it.

    Raises:
        MachineError: the machine was lost on the way.
    """
    why_not = _why_not(channel, instance, pool)
    if why_not is not None:
        log.info("host_key_kept", instance=instance.instance_id, reason=why_not)
        return False
    pair = make_key_pair()
    if not store.write(lambda tx: holds(tx) and _accept(tx, instance, (*instance.host_keys, pair.public))):
        return False
    try:
        channel.request("rekey", INSTALL_S, private=pair.private, public=pair.public)
    except AgentError as exc:
        if exc.slug_of_agent in UNTOUCHED:
            store.write(lambda tx: holds(tx) and _accept(tx, instance, instance.host_keys))
        log.warning("host_key_not_changed", instance=instance.instance_id, error=str(exc))
        return False
    problem = _prove(dataclasses.replace(target_for(instance, pool), host_keys=(pair.public,)))
    if problem is not None:
        log.warning("host_key_not_changed", instance=instance.instance_id, error=problem)
        return False
    return store.write(lambda tx: holds(tx) and _forget(tx, instance, pair.public))


def _why_not(channel: AgentChannel, instance: Instance, pool: Pool) -> str | None:
    if pool.info is None or not pool.info.abilities.hands_over_host_key:
        return "its key was not handed over in user data"
    if not instance.host_keys:
        return "no key of it is known"
    if pool.settings.fleet.known_hosts_file is not None:
        return "known_hosts_file names its key"
    if not channel.hello.get("root"):
        return "the agent is not root"
    return None


def _accept(tx: Tx, instance: Instance, keys: tuple[str, ...]) -> bool:
    instances.update(tx, instance.instance_id, host_keys=json.dumps(list(keys)))
    return True


def _forget(tx: Tx, instance: Instance, key: str) -> bool:
    tx.journal(
        "instance",
        instance.instance_id,
        "host_key_changed",
        "it shows a host key that stands in no user data",
        pool=instance.pool,
        instance_id=instance.instance_id,
    )
    return _accept(tx, instance, (key,))


def _prove(target: SshTarget) -> str | None:
    """Connect to nothing but the new key; what is wrong, or None. The server may need a moment to read it."""
    until = time.monotonic() + PROOF_S
    while True:
        try:
            connect(target).close()
        except MachineError as exc:
            if time.monotonic() > until:
                return str(exc)
        else:
            return None
        time.sleep(LOOK_S)
