"""`fleetctl unregister`: tells GitLab that a runner, or this manager of it, is no more, and drops its entry."""

from __future__ import annotations

from typing import Any

import click

from fleet.cli.entries import FileEntry, chosen, client_for, our_system_id, read_entries
from fleet.cli.exits import Exit, Misused
from fleet.cli.files import path_of
from fleet.cli.invocation import Invocation, command, invocation
from fleet.gitlab.client import GitLab
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.outcomes import Doubt, Refused, Unregistered
from fleet.gitlab.tokens import TokenKind, kind_of
from fleet.settings.runner import short_token
from fleet.settings.writing import remove_runner

COLUMNS = {"name": "NAME", "url": "URL", "result": "RESULT"}
Answer = Unregistered | Refused | Doubt


@command("unregister")
@click.option("-n", "--name", help="The runner of this name.")
@click.option("-u", "--url", envvar="CI_SERVER_URL", help="With --token: its server.")
@click.option("-t", "--token", envvar="CI_SERVER_TOKEN", help="The runner with this token.")
@click.option("--all-runners", is_flag=True, help="Every runner of the file.")
def unregister(name: str | None, url: str | None, token: str | None, all_runners: bool) -> int:
    """Tell GitLab that a runner is no more, and drop its entry.

    Of a runner made in GitLab's pages (glrt-...) only this manager is removed there; the runner itself stays until
    somebody deletes it in GitLab. A running manager finishes the runner's jobs and then lets its machines go.
    """
    asked = invocation()
    if not (name or token or all_runners):
        raise Misused("say which: --name, --token with --url, or --all-runners")
    entries = read_entries(path_of(asked), asked.env, may_be_missing=bool(token))
    system_id = our_system_id(path_of(asked))
    if token and not name and not any(each.token == token for each in entries):
        if not url:
            raise Misused("no entry has this token: name its server with --url")
        with client_for(Endpoint(url=url)) as gitlab:
            answer = _ended(gitlab, token, system_id)
        row = {"name": short_token(token), "url": url, "result": _result(answer)}
        return _told(asked, [(row, answer)])
    meant = entries if all_runners else chosen(entries, name=name, token=token, url=url if token else None)
    return _told(asked, [_unregistered(asked, each, system_id) for each in meant])


def _unregistered(asked: Invocation, entry: FileEntry, system_id: str) -> tuple[dict[str, Any], Answer]:
    row: dict[str, Any] = {"name": entry.name, "url": entry.url}
    if entry.problem is not None:
        return {**row, "result": entry.problem}, Refused(reason=entry.problem)
    with client_for(entry.endpoint) as gitlab:
        answer = _ended(gitlab, entry.token, system_id)
    if isinstance(answer, Unregistered):
        remove_runner(path_of(asked), entry.match, asked.env)
    return {**row, "result": _result(answer)}, answer


def _ended(gitlab: GitLab, token: str, system_id: str) -> Answer:
    if kind_of(token) is TokenKind.RUNNER:
        return gitlab.unregister_manager(token=token, system_id=system_id)
    return gitlab.unregister(token=token)


def _result(answer: Answer) -> str:
    match answer:
        case Unregistered():
            return "unregistered"
        case Refused(reason=reason):
            return f"refused: {reason}; fleetctl verify --delete drops entries that GitLab does not know"
        case Doubt(reason=reason):
            return f"unknown: {reason}; nothing was dropped, try again"


def _told(asked: Invocation, done: list[tuple[dict[str, Any], Answer]]) -> int:
    asked.printer.table([row for row, _ in done], COLUMNS, empty=f"{path_of(asked)} has no [[runners]] entry")
    if any(isinstance(answer, Refused) for _, answer in done):
        return Exit.NEGATIVE
    return Exit.UNREACHABLE if any(isinstance(answer, Doubt) for _, answer in done) else Exit.OK
