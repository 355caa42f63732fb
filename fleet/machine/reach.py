"""How an instance of a pool is reached: its address, our key, the host keys it may show; and the channel over it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleet.machine.bootstrap import AgentOptions
from fleet.machine.channel import AgentChannel, FrameCallback
from fleet.machine.channels import Opened
from fleet.machine.errors import Unreachable
from fleet.machine.ssh import connect
from fleet.machine.target import SshTarget, target_of
from fleet.model.instance import Instance
from fleet.sdk import Machine, MachineState, SshEndpoint
from fleet.store.book import Pool


def target_for(instance: Instance, pool: Pool) -> SshTarget:
    """Where to connect and how; the pool's `connector_config` beats what the provider says."""
    connector, ours, address = pool.settings.connector_config, pool.settings.fleet, instance.address
    password = connector.password.get_secret_value() if connector.password else None
    given = bool(connector.key_path or password)
    wanted = SshTarget(
        host="",
        user=connector.username or "root",
        private_key=None if given else pool.client_key,
        key_path=connector.key_path,
        password=password,
        host_keys=instance.host_keys,
        known_hosts_file=ours.known_hosts_file,
        trust_on_first_use=ours.trust_on_first_use and not instance.host_keys,
        connect_timeout_s=connector.timeout.total_seconds(),
        keepalive_s=connector.keepalive.total_seconds(),
    )
    wanted = replace(wanted, jump=tuple(wanted.hop(text) for text in ours.jump_hosts))
    listed = Machine(
        machine_id=instance.machine_id or "",
        state=MachineState.RUNNING,
        tags={},
        address_internal=address.get("internal"),
        address_external=address.get("external"),
        port=connector.protocol_port or int(address.get("port") or 22),
        user=connector.username or address.get("user"),
        endpoint=_endpoint(address.get("endpoint")),
    )
    external = connector.use_external_addr or listed.address_internal is None
    try:
        return target_of(listed, wanted, use_external=external)
    except ValueError as exc:
        raise Unreachable(f"instance {instance.instance_id} cannot be reached: {exc}") from exc


def _endpoint(kept: Mapping[str, Any] | None) -> SshEndpoint | None:
    if kept is None:
        return None
    jump = tuple(hop for each in kept["jump"] if (hop := _endpoint(each)) is not None)
    return SshEndpoint(**{**kept, "host_keys": tuple(kept["host_keys"]), "jump": jump})


def open_channel(instance: Instance, pool: Pool, on_frame: FrameCallback, *, deadline_s: float = 60.0) -> Opened:
    """Connect to an instance and bring its agent to life.

    Raises:
        MachineError: what went wrong and where.
    """
    ours = pool.settings.fleet
    home = instance.address.get("pipe_home")
    if home:
        return AgentChannel.over_process(pathlib.Path(str(home)), on_frame=on_frame), None
    options = AgentOptions(python=ours.agent_python, become_root=ours.sudo, deadline_s=deadline_s)
    connection = connect(target_for(instance, pool))
    try:
        return AgentChannel.over_ssh(connection, options=options, on_frame=on_frame), connection
    except BaseException:
        connection.close()
        raise
