"""`fleetctl verify` and `fleetctl list`: are the entries of the file good, and which are there."""

from __future__ import annotations

from typing import Any

import click

from fleet.cli.entries import FileEntry, chosen, client_for, info_for, our_system_id, read_entries
from fleet.cli.exits import Exit
from fleet.cli.files import path_of
from fleet.cli.invocation import Invocation, command, invocation
from fleet.cli.printing import note
from fleet.gitlab.outcomes import Doubt, Refused, Verified
from fleet.sdk import FleetError
from fleet.settings.section import Instant, Section
from fleet.settings.writing import remove_runner, set_token

COLUMNS = {"name": "NAME", "id": "ID", "url": "URL", "executor": "EXECUTOR", "token": "TOKEN"}
GOOD, REFUSED, UNKNOWN, UNUSABLE = "good", "refused", "unknown", "unusable"


@command("verify")
@click.option("-n", "--name", help="Only the runner of this name.")
@click.option("-u", "--url", help="Only runners of this server.")
@click.option("-t", "--token", help="Only the runner with this token.")
@click.option("--delete", is_flag=True, help="Drop the entries whose token GitLab refuses.")
def verify(name: str | None, url: str | None, token: str | None, delete: bool) -> int:
    """Ask GitLab whether the runners' tokens are good.

    Only a plain refusal (403) says that a runner is gone: `--delete` drops no entry because of anything else. The id of
    an entry that has none is written into the file. Ends with 1 when a token is refused, with 4 when GitLab gave no
    answer.
    """
    asked = invocation()
    entries = chosen(read_entries(path_of(asked), asked.env), name=name, url=url, token=token)
    system_id = our_system_id(path_of(asked))
    rows = [_verified(asked, each, system_id, delete=delete) for each in entries]
    columns = {"name": "NAME", "url": "URL", "id": "ID", "state": "TOKEN", "detail": "DETAIL"}
    asked.printer.table(rows, columns, empty=f"{path_of(asked)} has no [[runners]] entry")
    states = {row["state"] for row in rows if not row["deleted"]}
    if states & {REFUSED, UNUSABLE}:
        return Exit.NEGATIVE
    return Exit.UNREACHABLE if UNKNOWN in states else Exit.OK


def _verified(asked: Invocation, entry: FileEntry, system_id: str, *, delete: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "url": entry.url, "id": entry.id or None, "deleted": False}
    if entry.problem is not None:
        return {**row, "state": UNUSABLE, "detail": entry.problem}
    try:
        with client_for(entry.endpoint) as gitlab:
            answer = gitlab.verify(
                token=entry.token,
                system_id=system_id,
                info=info_for(entry.executor, entry.written.get("shell"), entry.written.get("labels")),
            )
    except FleetError as exc:
        return {**row, "state": UNUSABLE, "detail": str(exc)}
    match answer:
        case Verified(runner_id=runner_id):
            return {**row, "id": entry.id or runner_id, "state": GOOD, "detail": _note_id(asked, entry, runner_id)}
        case Refused(reason=reason):
            if delete:
                remove_runner(path_of(asked), entry.match, asked.env)
                note(f"dropped the entry of {entry.shown_as}")
            return {**row, "state": REFUSED, "detail": reason, "deleted": delete}
        case Doubt(reason=reason):
            return {**row, "state": UNKNOWN, "detail": reason}


def _note_id(asked: Invocation, entry: FileEntry, runner_id: int | None) -> str | None:
    """Write the runner's number into an entry that lacks it; everything else stays as it is written."""
    if entry.id or not runner_id:
        return None
    dates = {name: _instant(entry.written.get(name)) for name in ("token_obtained_at", "token_expires_at")}
    try:
        set_token(
            path_of(asked),
            entry.match,
            asked.env,
            token=str(entry.written.get("token", "")),
            obtained_at=dates["token_obtained_at"],
            expires_at=dates["token_expires_at"],
            runner_id=runner_id,
        )
    except FleetError as exc:
        return f"its number {runner_id} was not written: {exc}"
    return f"its number {runner_id} was written into the file"


def _instant(value: Any) -> Any:
    """An instant of the file; None where it says none."""
    return Dates.model_validate({"at": value}).at


class Dates(Section):
    """Reads an instant as the settings do."""

    at: Instant = None


@command("list")
def list_entries() -> int:
    """List the runners of the configuration.

    Unlike `gitlab-runner list`, which prints whole tokens, only their first characters are shown.
    """
    asked = invocation()
    rows = [each.view() for each in read_entries(path_of(asked), asked.env)]
    asked.printer.table(rows, COLUMNS, empty=f"{path_of(asked)} has no [[runners]] entry")
    return Exit.OK
