"""`fleetctl register`: makes a runner known to GitLab, or checks one that is, and adds its entry to the file.

Rule: everything that can be found wrong without GitLab is found first. What GitLab made and the file did not get is
taken back, unless `--leave-runner` says otherwise.
"""

from __future__ import annotations

import pathlib
import socket
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from click.core import ParameterSource

from fleet.cli.entries import client_for, info_for, our_system_id, read_entries
from fleet.cli.exits import ConfigInvalid, Exit, Failed, Misused, Unreachable
from fleet.cli.files import path_of
from fleet.cli.invocation import Invocation, command, invocation
from fleet.cli.printing import note
from fleet.cli.runner_keys import entry_of, key_options, laid_over, plain
from fleet.gitlab.client import GitLab
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.outcomes import Doubt, Invalid, Refused, Registered, Verified
from fleet.gitlab.tokens import TokenKind, kind_of
from fleet.runtime.clock import Clock
from fleet.sdk import FleetError
from fleet.settings.editing import TextNotEdited, with_runner
from fleet.settings.entries import EXECUTORS, resolved
from fleet.settings.loading import loads
from fleet.settings.problems import Severity
from fleet.settings.runner import short_token
from fleet.settings.writing import NEW_FILE, add_runner

# what the old way of registering sets on the server, and a glrt- token does not let us set
ATTRIBUTES = ("tag_list", "run_untagged", "locked", "access_level", "maximum_timeout", "paused", "maintenance_note")
TLS = ("tls-ca-file", "tls-cert-file", "tls-key-file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What GitLab said of the runner.

    Attributes:
        made: GitLab made it just now, for us.
    """

    token: str = field(repr=False)
    id: int
    expires_at: datetime | None
    made: bool


@command("register")
@click.option("-n", "--non-interactive", is_flag=True, envvar="REGISTER_NON_INTERACTIVE", help="Ask nothing.")
@click.option("-u", "--url", envvar="CI_SERVER_URL", metavar="URL", help="The GitLab server.")
@click.option("-t", "--token", envvar="CI_SERVER_TOKEN", metavar="TOKEN", help="The runner's token (glrt-...).")
@click.option(
    "-r", "--registration-token", envvar="REGISTRATION_TOKEN", metavar="TOKEN", help="The old way: makes a new runner."
)
@click.option("--name", "--description", envvar="RUNNER_NAME", metavar="TEXT", help="For people; default: host name.")
@click.option("--executor", envvar="RUNNER_EXECUTOR", metavar="NAME", help="instance, ssh or shell.")
@click.option(
    "--template-config",
    envvar="TEMPLATE_CONFIG_FILE",
    type=click.Path(path_type=pathlib.Path),
    help="A TOML file with one [[runners]]: what no option says is taken from it.",
)
@click.option("--leave-runner", is_flag=True, envvar="REGISTER_LEAVE_RUNNER", help="Keep a runner that was made.")
@click.option("--tag-list", envvar="RUNNER_TAG_LIST", metavar="TAGS", help="Old way only: tags, with commas.")
@click.option("--run-untagged", type=bool, envvar="REGISTER_RUN_UNTAGGED", metavar="true|false", help="Old way only.")
@click.option("--locked", type=bool, envvar="REGISTER_LOCKED", metavar="true|false", help="Old way only; default true.")
@click.option(
    "--access-level",
    envvar="REGISTER_ACCESS_LEVEL",
    type=click.Choice(["not_protected", "ref_protected"]),
    help="Old way only.",
)
@click.option("--maximum-timeout", type=int, envvar="REGISTER_MAXIMUM_TIMEOUT", help="Old way only: seconds.")
@click.option("--paused", type=bool, envvar="REGISTER_PAUSED", metavar="true|false", help="Old way only.")
@click.option("--maintenance-note", envvar="REGISTER_MAINTENANCE_NOTE", metavar="TEXT", help="Old way only.")
@key_options
@click.pass_context
def register(ctx: click.Context, /, **given: Any) -> int:
    """Add a runner to the configuration.

    With a token made in GitLab's pages (glrt-...) GitLab is asked whether it is good. With a registration token a new
    runner is made, the old way.
    """
    asked = invocation()
    ask = Questions(interactive=not given["non_interactive"] and sys.stdin.isatty())
    template = _template(given["template_config"])
    entry = laid_over(template, entry_of(given))
    url = ask.text("GitLab's address", given["url"] or template.get("url"), missing="--url or $CI_SERVER_URL")
    given_token = given["token"] or given["registration_token"] or template.get("token")
    token = ask.text("The runner's token", given_token, missing="--token or $CI_SERVER_TOKEN", secret=True)
    is_old_way = kind_of(token) is not TokenKind.RUNNER and (
        kind_of(token) is TokenKind.REGISTRATION or (given["token"] is None and given["registration_token"] is not None)
    )
    if not is_old_way:
        _refuse_attributes(ctx, token)
    entry["name"] = ask.text("A name for it", given["name"] or template.get("name"), default=socket.gethostname())
    entry["executor"] = ask.text(
        f"Its executor ({', '.join(sorted(EXECUTORS))})",
        given["executor"] or template.get("executor"),
        missing="--executor or $RUNNER_EXECUTOR",
    )
    _ask_for_place(entry, ask)
    entry["url"] = url.strip()
    _check_file(asked, entry)
    directory = str(path_of(asked).parent)
    endpoint = Endpoint(url=url, **{name.replace("-", "_"): resolved(entry.get(name), directory) for name in TLS})
    with client_for(endpoint) as gitlab:
        if is_old_way:
            known = _register(gitlab, token, entry, given)
        else:
            known = _verify(gitlab, token, entry, our_system_id(path_of(asked)))
        _save(asked, gitlab, entry, known, leave=given["leave_runner"])
    return Exit.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Asks what was not given, on a terminal and nowhere else."""

    interactive: bool

    def text(
        self, what: str, given: Any, *, missing: str = "", default: str | None = None, secret: bool = False
    ) -> str:
        """The given value, else the person's, else the default."""
        if given:
            return str(given)
        if self.interactive:
            return str(click.prompt(what, default=default, hide_input=secret, err=True))
        if default is not None:
            return default
        raise Misused(f"{what.lower()} is missing: give {missing}")


def _ask_for_place(entry: dict[str, Any], ask: Questions) -> None:
    """What the executor cannot do without."""
    if not ask.interactive:
        return
    if entry["executor"] == "ssh" and not entry.get("ssh", {}).get("host"):
        ssh = entry.setdefault("ssh", {})
        ssh["host"] = ask.text("The host to run jobs on", None)
        ssh["user"] = ask.text("The user to log in as", ssh.get("user"), default="root")
    if entry["executor"] == "instance" and not entry.get("autoscaler"):
        entry["autoscaler"] = {
            "plugin": ask.text("The plugin that makes machines (aws, gcp, azure, libvirt, local, static)", None),
            "max_instances": click.prompt("The most machines at once", type=int, default=10, err=True),
        }


def _template(path: pathlib.Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        runners = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("runners")
    except OSError as exc:
        raise ConfigInvalid(f"the template {path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"the template {path} is not TOML: {exc}") from exc
    if not isinstance(runners, list) or len(runners) != 1:
        raise ConfigInvalid(f"the template {path} must have exactly one [[runners]]")
    return dict(plain(runners[0]))


def _refuse_attributes(ctx: click.Context, token: str) -> None:
    sources = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    set_here = [each for each in ATTRIBUTES if ctx.get_parameter_source(each) in sources]
    if set_here:
        options = ", ".join(f"--{each.replace('_', '-')}" for each in set_here)
        kind = "a glrt- token" if kind_of(token) is TokenKind.RUNNER else "a runner's own token"
        raise Misused(f"{options} cannot be set with {kind}: set them in GitLab, on the runner's page")


def _check_file(asked: Invocation, entry: Mapping[str, Any]) -> None:
    """Whether the file with the new entry would be one that the manager can use."""
    path = path_of(asked)
    before = path.read_text(encoding="utf-8-sig") if path.exists() else NEW_FILE
    index = len(read_entries(path, asked.env, may_be_missing=True))
    try:
        after = with_runner(before, {**entry, "token": "to-be-had"})
    except TextNotEdited as exc:
        raise ConfigInvalid(f"{path}: {exc}") from exc
    loaded = loads(after.encode(), str(path), asked.env)
    wrong = [each for each in loaded.problems if each.severity is Severity.ERROR]
    if wrong:
        lines = "\n".join(each.render(str(path)) for each in wrong)
        raise ConfigInvalid(f"with this entry the file could not be used, so nothing was done:\n{lines}")
    for each in loaded.problems:
        if each.severity is Severity.ENTRY_ERROR and (each.runner or 0) >= index:
            note(f"warning: the runner will not run until this is set: {each.key}: {each.message}")


def _register(gitlab: GitLab, token: str, entry: Mapping[str, Any], given: Mapping[str, Any]) -> Known:
    wishes: dict[str, Any] = {key: given[key] for key in ATTRIBUTES if given[key] is not None}
    wishes.setdefault("locked", True)
    wishes.setdefault("run_untagged", not given["tag_list"])
    wishes["description"] = entry["name"]
    info = info_for(entry["executor"], entry.get("shell"))
    match gitlab.register(token=token, info=info, settings=wishes):
        case Registered(runner_id=runner_id, token=new, token_expires_at=expires_at):
            return Known(token=new, id=runner_id, expires_at=expires_at, made=True)
        case Refused(reason=reason):
            raise Failed(f"GitLab refused the registration token: {reason}; look for the right one in its pages")
        case Invalid(reason=reason):
            raise Failed(f"GitLab did not accept the runner: {reason}")
        case Doubt(reason=reason):
            raise Unreachable(f"GitLab gave no answer that helps: {reason}; whether a runner was made, its pages say")


def _verify(gitlab: GitLab, token: str, entry: Mapping[str, Any], system_id: str) -> Known:
    info = info_for(entry["executor"], entry.get("shell"))
    match gitlab.verify(token=token, system_id=system_id, info=info):
        case Verified(runner_id=runner_id, token_expires_at=expires_at):
            return Known(token=token, id=runner_id or 0, expires_at=expires_at, made=False)
        case Refused(reason=reason):
            raise Failed(f"GitLab does not know the token {short_token(token)}...: {reason}; make a new runner there")
        case Doubt(reason=reason):
            raise Unreachable(f"GitLab gave no answer that helps: {reason}; nothing was changed, try again")


def _save(asked: Invocation, gitlab: GitLab, entry: dict[str, Any], known: Known, *, leave: bool) -> None:
    saved = False
    try:
        twin = next(
            (each for each in read_entries(path_of(asked), asked.env, may_be_missing=True) if _is(each, entry, known)),
            None,
        )
        if twin is not None:
            raise Failed(f"{path_of(asked)} has this runner already, as {twin.shown_as}: nothing was changed")
        heads = {
            "name": entry["name"],
            "url": entry["url"],
            "id": known.id or None,
            "token": known.token,
            "token_obtained_at": Clock().wall().replace(microsecond=0),
            "token_expires_at": known.expires_at and known.expires_at.replace(microsecond=0),
            "executor": entry["executor"],
        }
        add_runner(path_of(asked), {**heads, **{key: value for key, value in entry.items() if key not in heads}})
        saved = True
    finally:
        if not saved and known.made and not leave:
            _take_back(gitlab, known)
    note(f"runner {entry['name']} (number {known.id}) is in {path_of(asked)}; a running manager takes it up by itself")


def _is(each: Any, entry: Mapping[str, Any], known: Known) -> bool:
    return bool(each.url == str(entry["url"]).rstrip("/") and known.id and each.id == known.id)


def _take_back(gitlab: GitLab, known: Known) -> None:
    try:
        gitlab.unregister(token=known.token)
        note("the runner that GitLab had made was removed again")
    except FleetError as exc:
        note(f"the runner number {known.id} stays in GitLab: {exc}")
