"""From the entries of the file to pools: names, sharing, and what stops a pool.

Rule: a pool has one full table. Who names it and says nothing else shares it; two full tables that differ are an
error, since nobody could say which one holds. What is wrong with a pool stops every runner that uses it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from fleet.model.ids import PoolName
from fleet.settings.autoscaler import AutoscalerTable, ConnectorTable, PoolTable
from fleet.settings.entries import PLACES, Entry, resolved, unreadable
from fleet.settings.environment import Env, home, local_timezone
from fleet.settings.findings import Findings
from fleet.settings.manager import FleetSettings
from fleet.settings.policies import usable_policies
from fleet.settings.pools import HOST_POOL, PoolKeys, PoolKind, PoolSettings, bare_plugin
from fleet.settings.positions import Path
from fleet.settings.runner import SshTable

SYSTEMS = ("linux", "darwin")  # those that the agent runs on


@dataclass(slots=True, kw_only=True)
class Definition:
    """A full table for a pool.

    Attributes:
        path: of the table in the file.
        users: the entries whose jobs run there.
        settings: None when it cannot be a pool.
        reason: what stops it and all its users.
    """

    name: PoolName
    table: AutoscalerTable
    kind: PoolKind
    path: Path
    users: list[Entry] = field(default_factory=list)
    settings: PoolSettings | None = None
    reason: str | None = None

    def stop(self, findings: Findings, key: Path, message: str) -> None:
        """Note what stops this pool, and its users with it."""
        findings.stop((*self.path, *key), message)
        self.reason = self.reason or message
        for user in self.users:
            if user.path == self.path[:2]:
                user.stopped = user.stopped or message
            else:
                user.stop(findings, (), f"its pool {self.name!r} is stopped: {message}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What pools are resolved with."""

    findings: Findings
    fleet: FleetSettings
    concurrent: int
    env: Env
    directory: str


def resolve(entries: list[Entry], around: Around) -> list[Definition]:
    """The pools of the file; an entry that has none is stopped."""
    found: dict[PoolName, Definition] = {}
    placed = [entry for entry in entries if entry.table.executor in PLACES]
    sharing = [entry for entry in placed if _only_names_a_pool(entry)]
    for entry in placed:
        made = _definition(entry, around) if entry not in sharing else None
        if made is not None:
            _add(found, made, entry, around.findings)
    for entry in sharing:
        _share(found, entry, around.findings)
    for each in found.values():
        _finish(each, around)
    _check_renames(found, around.findings)
    return list(found.values())


def _own(entry: Entry) -> PoolTable:
    return entry.table.autoscaler.fleet if entry.table.autoscaler is not None else PoolTable()


def _only_names_a_pool(entry: Entry) -> bool:
    table = entry.table.autoscaler
    return (
        table is not None
        and entry.place != "host"
        and entry.table.ssh is None
        and table.model_fields_set == {"fleet"}
        and table.fleet.model_fields_set == {"pool"}
        and table.fleet.pool is not None
    )


def _definition(entry: Entry, around: Around) -> Definition | None:
    at = (*entry.path, "autoscaler")
    if entry.place == "host":
        if entry.table.autoscaler is not None:
            around.findings.warn(at, f"has no effect: executor {entry.table.executor} runs jobs on this host")
        table = AutoscalerTable(plugin="host", capacity_per_instance=around.concurrent)
        return Definition(name=HOST_POOL, table=table, kind=PoolKind.HOST, path=entry.path)
    if entry.place == "ssh" and entry.table.ssh is not None:
        return _ssh_definition(entry, entry.table.ssh, around)
    written = entry.table.autoscaler
    if written is None:
        wants = "[runners.ssh] with host" if entry.place == "ssh" else "[runners.autoscaler]"
        if entry.stopped is None:
            entry.stop(around.findings, (), f"executor {entry.table.executor} needs a table {wants}: add it")
        return None
    name = PoolName(written.fleet.pool or entry.key)
    if written.plugin is None:
        around.findings.error((*at, "plugin"), "is missing: name the provider that makes the machines, such as aws")
        return None
    plugin = bare_plugin(written.plugin)
    if name == HOST_POOL and plugin != "host":
        around.findings.error((*at, "fleet", "pool"), "the name 'host' is for jobs on this host: use another name")
        return None
    if entry.place == "ssh" and plugin != "static":
        entry.stop(around.findings, ("autoscaler", "plugin"), "executor ssh runs on given hosts: use plugin static")
    kind = {"static": PoolKind.STATIC, "host": PoolKind.HOST}.get(plugin, PoolKind.AUTOSCALED)
    return Definition(name=name, table=written, kind=kind, path=at)


def _ssh_definition(entry: Entry, ssh: SshTable, around: Around) -> Definition | None:
    written = entry.table.autoscaler or AutoscalerTable()
    at = (*entry.path, "ssh")
    if ssh.host is None:
        entry.stop(around.findings, ("ssh", "host"), "is missing: name the host that runs the jobs")
        return None
    if written.plugin is not None:
        entry.stop(around.findings, ("autoscaler", "plugin"), "executor ssh has its host in [runners.ssh]: remove one")
    hosts = ssh.known_hosts_file
    if hosts is None:
        usual = str(home(around.env) / ".ssh/known_hosts")
        hosts = usual if unreadable(usual) is None else None
    room = entry.table.limit or around.concurrent
    table = written.model_copy(
        update={
            "plugin": "static",
            "plugin_config": {"hosts": [{"name": ssh.host, "address": ssh.host, "port": ssh.port}]},
            "capacity_per_instance": (
                written.capacity_per_instance if "capacity_per_instance" in written.model_fields_set else room
            ),
            "connector_config": ConnectorTable(
                protocol_port=ssh.port,
                username=ssh.user,
                password=ssh.password,
                key_path=ssh.identity_file,
                use_static_credentials=True,
            ),
            "fleet": written.fleet.model_copy(
                update={
                    "known_hosts_file": written.fleet.known_hosts_file or hosts,
                    "trust_on_first_use": written.fleet.trust_on_first_use or ssh.disable_strict_host_key_checking,
                }
            ),
        }
    )
    return Definition(name=PoolName(written.fleet.pool or entry.key), table=table, kind=PoolKind.STATIC, path=at)


def _add(found: dict[PoolName, Definition], made: Definition, entry: Entry, findings: Findings) -> None:
    first = found.setdefault(made.name, made)
    first.users.append(entry)
    if first.table != made.table or first.kind is not made.kind:
        line, other = findings.positions.line(made.path), findings.positions.line(first.path)
        findings.error(
            (*made.path, "fleet", "pool"),
            f"two different pools have the name {made.name!r}, in lines {other} and {line}: rename one, "
            "or leave nothing but the name in one of the tables to share the other",
        )


def _share(found: dict[PoolName, Definition], entry: Entry, findings: Findings) -> None:
    name = PoolName(str(_own(entry).pool))
    if name in found:
        found[name].users.append(entry)
        return
    near = difflib.get_close_matches(name, found, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else "one runner must have the full table for it"
    findings.error((*entry.path, "autoscaler", "fleet", "pool"), f"there is no pool {name!r}: {hint}")


def _finish(made: Definition, around: Around) -> None:
    _check_connector(made, around)
    _check_hosts(made, around.findings)
    _check_placements(made, around.findings)
    table, directory = made.table, around.directory
    policies = usable_policies(table.policy, (*made.path, "policy"), around.findings, local_timezone(around.env))
    own = table.fleet
    keys: dict[str, Any] = {name: getattr(own, name) for name in PoolTable.model_fields}
    keys["agent_timeout"] = own.agent_timeout or around.fleet.agent_timeout
    keys["allow_same_user"] = around.fleet.allow_same_user
    keys["unreachable_timeout"] = own.unreachable_timeout or around.fleet.unreachable_timeout
    keys["known_hosts_file"] = resolved(own.known_hosts_file, directory)
    connector = table.connector_config
    values: dict[str, Any] = {name: getattr(table, name) for name in AutoscalerTable.model_fields}
    values |= {
        "plugin": bare_plugin(table.plugin or ""),
        "policy": policies,
        "fleet": PoolKeys.model_validate(keys),
        "connector_config": connector.model_copy(update={"key_path": resolved(connector.key_path, directory)}),
    }
    made.settings = PoolSettings.model_validate(
        {
            **values,
            "name": made.name,
            "kind": made.kind,
            "line": around.findings.positions.line(made.path),
        }
    )


def _check_connector(made: Definition, around: Around) -> None:
    connector = made.table.connector_config
    protocol, system = connector.protocol, connector.os
    if protocol not in {None, "ssh"}:
        made.stop(around.findings, ("connector_config", "protocol"), f"{protocol!r} is not supported: use ssh")
    if system is not None and system.lower() not in SYSTEMS:
        why = f"{system!r} is not supported: the agent runs on {' and '.join(SYSTEMS)}"
        made.stop(around.findings, ("connector_config", "os"), why)
    is_ssh = made.path[-1] == "ssh"
    files: tuple[tuple[Path, str | None], ...] = (
        (("identity_file",) if is_ssh else ("connector_config", "key_path"), connector.key_path),
        (("known_hosts_file",) if is_ssh else ("fleet", "known_hosts_file"), made.table.fleet.known_hosts_file),
    )
    for key, written in files:
        path = resolved(written, around.directory)
        reason = unreadable(path) if path is not None else None
        if reason is not None:
            made.stop(around.findings, key, f"{reason}: check the path and its permissions")


def _check_hosts(made: Definition, findings: Findings) -> None:
    if made.kind is not PoolKind.STATIC:
        return
    at = (*made.path, "plugin_config", "hosts")
    hosts = made.table.plugin_config.get("hosts")
    if not isinstance(hosts, list) or not hosts:
        findings.error(at, 'must be a list of hosts, such as [{ address = "ci1.example.com" }]')
        return
    for number, host in enumerate(hosts):
        is_table = isinstance(host, dict) and isinstance(host.get("address"), str) and host["address"]
        if not is_table and not (isinstance(host, str) and host):
            findings.error((*at, number), 'must be a table with address, or a text such as "user@host:22"')


def _check_placements(made: Definition, findings: Findings) -> None:
    seen: dict[str, int] = {}
    for number, placement in enumerate(made.table.placements):
        at = (*made.path, "placements", number)
        if placement.name in seen:
            line = findings.positions.line((*made.path, "placements", seen[placement.name]))
            findings.error((*at, "name"), f"{placement.name!r} is also the name of the placement in line {line}")
        seen.setdefault(placement.name, number)


def _check_renames(found: dict[PoolName, Definition], findings: Findings) -> None:
    taken: dict[str, PoolName] = {}
    for each in found.values():
        former = each.table.fleet.renamed_from
        at = (*each.path, "fleet", "renamed_from")
        if former is None:
            continue
        if former in found:
            findings.error(at, f"there still is a pool {former!r}: a renamed pool leaves its old name")
        if former in taken:
            findings.error(at, f"pool {taken[former]!r} was renamed from {former!r}, too: only one can be")
        taken[former] = each.name
