"""`fleetctl check`: tries everything that the manager needs, and says of each whether it is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from fleet.cli import checks, outside_checks
from fleet.cli.asking import is_running
from fleet.cli.checks import Finding, Verdict
from fleet.cli.database import sqlite_file
from fleet.cli.entries import our_system_id
from fleet.cli.exits import Exit
from fleet.cli.files import loaded_for, path_of
from fleet.cli.invocation import Invocation, command, invocation
from fleet.cli.offline import opened_store
from fleet.runtime.rows import store_name
from fleet.sdk import FleetError
from fleet.settings.settings import Settings
from fleet.store import pools
from fleet.store.listings import list_managers
from fleet.store.pools import PoolRow

COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@command("check")
@click.option("--offline", is_flag=True, help="Ask neither GitLab nor providers nor hosts.")
def check(offline: bool) -> int:
    """Try everything that the manager needs, and say what is missing and what to do.

    Looks at the configuration, the secret key, the database, disk space and addresses; asks GitLab for each runner,
    lets each pool's provider list its machines, and logs in to hosts that are given. Changes nothing. Ends with 1 when
    something does not work, with 0 when there are warnings alone.
    """
    asked = invocation()
    found = []
    for finding in _findings(asked, offline=offline):
        found.append(finding)
        if not asked.printer.as_json:
            _print(finding)
    if asked.printer.as_json:
        asked.printer.value(
            [{"about": each.about, "verdict": each.verdict.value, "message": each.message} for each in found]
        )
    return Exit.NEGATIVE if any(each.verdict is Verdict.FAIL for each in found) else Exit.OK


def _print(finding: Finding) -> None:
    verdict = f"{finding.verdict.value:<4}"
    if sys.stdout.isatty():
        verdict = click.style(verdict, fg=COLOURS[finding.verdict])
    click.echo(f"{verdict}  {finding.about}: {finding.message}")


def _findings(asked: Invocation, *, offline: bool) -> Iterator[Finding]:
    loaded = loaded_for(asked)
    yield from checks.of_file(loaded)
    settings = loaded.settings
    if settings is None:
        return
    yield from checks.of_key(settings)
    yield from checks.of_database(settings)
    yield from checks.of_disks(settings)
    yield from checks.of_addresses(settings, manager_runs=is_running(settings))
    rows, store_id, more = _stored(settings)
    yield from more
    if offline:
        return
    try:
        system_id = our_system_id(path_of(asked))
    except FleetError as exc:
        yield checks.fail("system id", str(exc))
        return
    yield from outside_checks.of_gitlab(settings, system_id)
    yield from outside_checks.of_pools(settings, rows, store_id)


def _stored(settings: Settings) -> tuple[list[PoolRow], str, list[Finding]]:
    """What the database knows of pools, and whether our key opens it."""
    file = sqlite_file(settings)
    if file is not None and not file.exists():
        return [], "none-yet", []
    try:
        with opened_store(settings) as store:
            rows, others = store.read(lambda tx: (pools.all_pools(tx), list_managers(tx)))
            alive = ", ".join(each.manager_id for each in others if each.alive)
            return rows, store.read(store_name), [checks.ok("managers", f"alive: {alive or 'none'}")]
    except FleetError as exc:
        return [], "unknown", [checks.fail("database", str(exc))]
