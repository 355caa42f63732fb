"""Writes git's configuration for one job: how to log in, and whom to trust.

Rule: the job's token stands in one file of mode 0600 beside the project directory, which goes with the job. The
repository's own `.git/config` only names that file, so nothing secret outlives the job in it.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping

from fleet.execution.facts import RunnerFacts
from fleet.execution.git_wishes import GitWishes
from fleet.execution.layout import Layout
from fleet.execution.variables import Variables
from fleet.gitlab.payload import JobPayload

USER = "gitlab-ci-token"
_HELPER = '!f() { if [ "$1" = get ]; then echo "password=$CI_JOB_TOKEN"; fi; }; f'


def config_text(
    *, payload: JobPayload, runner: RunnerFacts, wishes: GitWishes, variables: Variables, flags: Mapping[str, bool]
) -> str:
    """The file that `include.path` points to."""
    in_urls = not flags["FF_GIT_URLS_WITHOUT_TOKENS"]
    servers = dict.fromkeys(filter(None, (_base(wishes.remote), _base(payload.git_info.repo_url))))
    text = []
    for server in servers:
        rewritten = [server] if in_urls else []
        if wishes.submodules.forces_https:
            rewritten += _ssh_forms(server, variables)
        target = _with_login(server, payload.token) if in_urls else server
        if rewritten:
            text.append(_section("url", target, (("insteadOf", form) for form in rewritten)))
        text.append(_section("http", server, _tls(runner, variables)))
        if not in_urls:
            text.append(_section("credential", server, (("username", USER), ("helper", ""), ("helper", _HELPER))))
    return "".join(text)


def template_text(layout: Layout) -> str:
    """The `config` that a fresh repository starts from."""
    return (
        _section("fetch", "", (("recurseSubmodules", "false"),))
        + _section("gc", "", (("autoDetach", "false"),))  # else it goes on when the stage's processes are ended
        + _section("include", "", (("path", layout.git_config),))
    )


def _base(url: str) -> str:
    """`scheme://host/`, with its slash, so that it stands for no other host that begins alike."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}/" if parts.scheme in {"http", "https"} and host else ""


def _with_login(server: str, token: str) -> str:
    scheme, _, rest = server.partition("://")
    return f"{scheme}://{USER}:{urllib.parse.quote(token, safe='')}@{rest}"


def _ssh_forms(server: str, variables: Variables) -> list[str]:
    """How the same server is written when one speaks SSH to it."""
    host = variables.get("CI_SERVER_SHELL_SSH_HOST") or urllib.parse.urlsplit(server).hostname or ""
    port = variables.get("CI_SERVER_SHELL_SSH_PORT")
    forms = [f"git@{host}:", f"ssh://git@{host}/"]
    if port:
        forms.append(f"ssh://git@{host}:{port}/")
    return forms


def _tls(runner: RunnerFacts, variables: Variables) -> Iterable[tuple[str, str]]:
    for key, name, text in (
        ("sslCAInfo", "CA", runner.tls_ca),
        ("sslCert", "CERT", runner.tls_cert),
        ("sslKey", "KEY", runner.tls_key),
    ):
        if text:
            yield key, variables.path_of(f"CI_SERVER_TLS_{name}_FILE")


def _section(name: str, sub: str, entries: Iterable[tuple[str, str]]) -> str:
    lines = [f"\t{key} = {_quoted(value)}\n" for key, value in entries]
    head = f"[{name} {_quoted(sub)}]\n" if sub else f"[{name}]\n"
    return head + "".join(lines) if lines else ""


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
