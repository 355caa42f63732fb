"""Warnings about a configuration that works, but perhaps not as its author thinks."""

from __future__ import annotations

from datetime import timedelta

from fleet.settings.cache import problem_of
from fleet.settings.entries import Entry
from fleet.settings.findings import Findings
from fleet.settings.manager import FleetSettings, GlobalTable
from fleet.settings.policies import holds_always
from fleet.settings.pools import PoolKind
from fleet.settings.resolving import Definition


def advise(
    top: GlobalTable, fleet: FleetSettings, entries: list[Entry], definitions: list[Definition], findings: Findings
) -> None:
    """Note every warning that needs to see more than one key."""
    running = [each for each in entries if each.stopped is None]
    _on_room(top, running, definitions, findings)
    _on_polling(top, running, findings)
    for each in definitions:
        _on_pool(each, findings)
        if not fleet.database.get_secret_value().startswith("sqlite"):
            _on_zones(each, findings)
    for entry in running:
        _on_build_dir(entry, definitions, findings)
        _on_own_user(entry, definitions, findings)
        _on_cache(entry, findings)
    _on_terminals(top, findings)
    if not entries:
        findings.warn((), "there is no [[runners]] entry: nothing will run; add one with fleetctl register")


def _on_terminals(top: GlobalTable, findings: Findings) -> None:
    server = top.session_server
    if server.listen_address is not None and server.advertised is None:
        findings.warn(
            ("session_server", "listen_address"),
            f"{server.listen_address} is no address that GitLab could reach, so there are no interactive terminals: "
            "set advertise_address to this host's name or address",
        )


def _on_room(top: GlobalTable, running: list[Entry], definitions: list[Definition], findings: Findings) -> None:
    autoscaled = [each for each in definitions if each.kind is PoolKind.AUTOSCALED and each.reason is None]
    slots = sum(each.table.max_instances * each.table.capacity_per_instance for each in autoscaled)
    if top.concurrent < slots:
        findings.warn(
            ("concurrent",),
            f"{top.concurrent} jobs at once, while the pools have room for {slots}: machines beyond that stay unused",
        )
    if top.concurrent < len(running):
        findings.warn(
            ("concurrent",),
            f"{top.concurrent} is less than the {len(running)} runners: not all of them can ask for jobs at once",
        )


def _on_polling(top: GlobalTable, running: list[Entry], findings: Findings) -> None:
    """GitLab holds a poll for up to 50 s when the queue is empty; with one poll at a time, bursts come singly."""
    narrow = [
        each for each in running if each.table.request_concurrency == 1 and each.table.limit != 1 and top.concurrent > 1
    ]
    if not narrow:
        return
    names = ", ".join(each.table.name or each.key for each in narrow)
    small = [each for each in narrow if 0 < each.table.limit <= 2]
    more = f"; with limit {small[0].table.limit} it matters most" if small else ""
    findings.warn(
        (*narrow[0].path, "request_concurrency"),
        f"is 1 for {names}: while GitLab holds an empty poll (up to 50 s) no second one is made, "
        f"so a burst of jobs is fetched one by one; 2 to 10 is usual{more}",
    )


def _on_pool(made: Definition, findings: Findings) -> None:
    table, at = made.table, made.path
    if table.state_storage.model_fields_set:
        findings.warn((*at, "state_storage"), "is not needed: instances and jobs are always kept, in [fleet] database")
    if made.kind is not PoolKind.AUTOSCALED:
        return
    if table.max_instances == 0:
        findings.warn((*at, "max_instances"), "is not set: nothing limits how many machines this pool may make")
    room = table.max_instances * table.capacity_per_instance
    for number, policy in enumerate(table.policy):
        here = (*at, "policy", number)
        if room and policy.idle_count > room:
            findings.warn((*here, "idle_count"), f"{policy.idle_count} free slots, while the pool has room for {room}")
        if policy.idle_count == 0 and policy.idle_time == timedelta(0) and table.max_use_count != 1:
            findings.warn(
                (*here, "idle_time"),
                "is 0, so each machine ends right after its job; a few minutes let it be used again",
            )
    if table.policy and not any(holds_always(policy) for policy in table.policy):
        findings.warn((*at, "policy"), "no policy holds at all times: outside their periods no machine is kept idle")


def _on_zones(made: Definition, findings: Findings) -> None:
    """Managers that share a pool each read its periods in their own host's zone, unless the policy names one."""
    for number, policy in enumerate(made.table.policy):
        if policy.timezone in {None, "Local"} and not holds_always(policy):
            findings.warn(
                (*made.path, "policy", number, "timezone"),
                "is not set: managers on hosts in other time zones would read these periods otherwise; name the zone",
            )


def _on_build_dir(entry: Entry, definitions: list[Definition], findings: Findings) -> None:
    if not entry.table.instance.use_common_build_dir:
        return
    pool = next((each for each in definitions if entry in each.users), None)
    if pool is not None and pool.table.max_use_count != 1:
        findings.warn(
            (*entry.path, "instance", "use_common_build_dir"),
            "has no effect: it needs machines that run one job in their life (max_use_count = 1)",
        )


def _on_own_user(entry: Entry, definitions: list[Definition], findings: Findings) -> None:
    """Who shares a user with the manager can read its keys, and every token and variable with them."""
    pool = next((each for each in definitions if entry in each.users), None)
    if entry.table.executor != "shell" or entry.table.user:
        return
    if pool is None or pool.kind is not PoolKind.HOST or pool.settings is None:
        return
    if pool.settings.fleet.allow_same_user:
        what = "jobs on this host run as the manager's own user and can read its secrets: name another user"
    else:
        what = (
            "is not set: jobs on this host would run as the manager's own user, who can read its secrets, and are"
            " refused; name another user, or set allow_same_user = true in [fleet]"
        )
    findings.warn((*entry.path, "user"), what)


def _on_cache(entry: Entry, findings: Findings) -> None:
    problem = problem_of(entry.table.cache)
    if problem is not None:
        findings.warn((*entry.path, "cache"), f"{problem}; until then caches stay on the machine they were made on")
