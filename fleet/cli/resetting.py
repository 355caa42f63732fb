"""`fleetctl reset-token`: a new token for a runner, saved before anything else happens.

Rule: the old token is dead once GitLab has answered, so the new one must not get lost: the file is tried first, and a
token that could not be saved is kept in a file of its own that only its owner can read.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import click

from fleet.cli.entries import FileEntry, chosen, client_for, read_entries
from fleet.cli.exits import Exit, Failed, Misused
from fleet.cli.files import path_of
from fleet.cli.invocation import Invocation, command, invocation
from fleet.cli.printing import note
from fleet.gitlab.outcomes import Doubt, Refused, TokenReset
from fleet.runtime.clock import Clock
from fleet.sdk import FleetError
from fleet.settings.writing import set_token

COLUMNS = {"name": "NAME", "url": "URL", "id": "ID", "result": "RESULT", "expires_at": "EXPIRES"}


@command("reset-token")
@click.option("-n", "--name", help="The runner of this name.")
@click.option("-u", "--url", help="With --id: its server.")
@click.option("-i", "--id", "runner_id", type=int, default=0, help="With --url: its number there.")
@click.option("--all-runners", is_flag=True, help="Every runner of the file.")
@click.option("--pat", metavar="TOKEN", help="A person's access token, where the runner's own is dead already.")
def reset_token(name: str | None, url: str | None, runner_id: int, all_runners: bool, pat: str | None) -> int:
    """Get a new token for a runner, and save it."""
    asked = invocation()
    if not (name or (url and runner_id) or all_runners):
        raise Misused("say which: --name, --url with --id, or --all-runners")
    entries = read_entries(path_of(asked), asked.env)
    meant = entries if all_runners else chosen(entries, name=name, url=url, number=runner_id)
    if not os.access(path_of(asked).parent, os.W_OK):
        raise Failed(f"{path_of(asked).parent} cannot be written, so a new token could not be saved: nothing was done")
    done = [_reset(asked, each, pat) for each in meant]
    asked.printer.table([row for row, _ in done], COLUMNS, empty=f"{path_of(asked)} has no [[runners]] entry")
    return max(code for _, code in done) if done else Exit.OK


def _reset(asked: Invocation, entry: FileEntry, pat: str | None) -> tuple[dict[str, Any], Exit]:
    row: dict[str, Any] = {"name": entry.name, "url": entry.url, "id": entry.id or None, "expires_at": None}
    if entry.problem is not None and not (pat and entry.url):
        return {**row, "result": entry.problem}, Exit.NEGATIVE
    if pat and not entry.id:
        return {**row, "result": "--pat needs the runner's id in its entry"}, Exit.NEGATIVE
    with client_for(entry.endpoint) as gitlab:
        if pat:
            answer = gitlab.reset_token_by_pat(runner_id=entry.id, pat=pat)
        else:
            answer = gitlab.reset_token(token=entry.token)
    match answer:
        case TokenReset(token=token, token_expires_at=expires_at):
            _save(asked, entry, token, expires_at)
            return {**row, "result": "saved", "expires_at": expires_at and expires_at.isoformat()}, Exit.OK
        case Refused(reason=reason):
            return {**row, "result": f"refused: {reason}"}, Exit.NEGATIVE
        case Doubt(reason=reason):
            return {**row, "result": f"unknown: {reason}; fleetctl verify says which token is good"}, Exit.UNREACHABLE


def _save(asked: Invocation, entry: FileEntry, token: str, expires_at: Any) -> None:
    try:
        set_token(
            path_of(asked), entry.match, asked.env, token=token, obtained_at=Clock().wall(), expires_at=expires_at
        )
    except FleetError as exc:
        number, path = tempfile.mkstemp(prefix="fleet-token-")
        with os.fdopen(number, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
        raise Failed(f"{exc}; the new token of {entry.shown_as} is in {path}: write it into its entry") from exc
    if "$" in str(entry.written.get("token", "")):
        note(f"the entry of {entry.shown_as} had its token from a variable: now the token itself stands in the file")
