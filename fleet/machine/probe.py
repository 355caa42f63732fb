"""What a host has and lacks for our jobs, for `fleetctl check`: one login, one exec, nothing installed or changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.machine.bootstrap import PYTHONS, marked_program
from fleet.machine.errors import MachineError
from fleet.machine.pipe import Pipe, PipeTimeout, readable
from fleet.machine.ssh import connect
from fleet.machine.target import SshTarget

LEAST_FREE_BYTES = 1024 * 1024 * 1024
MAX_ANSWER_BYTES = 1024 * 1024

NO_GIT = "no git; jobs cannot get their sources"
NO_ENGINE = "no Docker that this user may use; jobs cannot run in containers"
# Each line it prints is a marker, a name and a value; a tool that is absent gives an empty value.
_SCRIPT = r"""
m={mark}
say() {{ printf '\n%s %s %s\n' "$m" "$1" "$(printf '%s' "$2" | tr '\n' ' ')"; }}
first() {{ "$@" </dev/null 2>/dev/null | head -n 1; }}
say system "$(uname -srm)"
say user "$(id -un)"
say uid "$(id -u)"
say home "$HOME"
for p in {pythons}; do
  command -v "$p" >/dev/null 2>&1 || continue
  v=$(first "$p" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
  say python "$p $v"
  case "$v" in 3.[89].*|3.[1-9][0-9].*) say usable "$p $v"; break;; esac
done
say sudo "$(command -v sudo >/dev/null 2>&1 && sudo -n true </dev/null >/dev/null 2>&1 && echo yes)"
say git "$(first git --version)"
say git-lfs "$(first git lfs version)"
say docker "$(first docker version --format '{{{{.Server.Version}}}}')"
s=; for p in sh bash pwsh; do command -v "$p" >/dev/null 2>&1 && s="$s $p"; done; say shells "$s"
t="$HOME/.fleet-probe-$$"
say writable "$( (: >"$t") 2>/dev/null && rm -f "$t" && echo yes)"
say free-kb "$(df -Pk "$HOME" 2>/dev/null | awk 'NR == 2 {{print $4}}')"
say end ""
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """What was found out about one host.

    Attributes:
        where: the login, for messages.
        host_key: the public key line that it showed; None when it was not reached.
        facts: name -> what was found: system, user, uid, home, python, usable, sudo, git, git-lfs, docker, shells,
            writable, free-kb. Empty text means: not there.
        problems: what keeps jobs from running there, a sentence each.
        warnings: what some jobs will lack, a sentence each.
    """

    where: str
    host_key: str | None
    facts: Mapping[str, str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def is_fit(self) -> bool:
        """Whether jobs can run there."""
        return not self.problems


def probe(target: SshTarget, *, python: str | None = None, timeout_s: float = 30.0) -> HostReport:
    """Look at a host over SSH. What goes wrong becomes a problem in the report, never an exception."""
    try:
        with connect(target) as connection:
            mark, command, script = marked_program(_SCRIPT, pythons=(python,) if python else PYTHONS)
            pipe = connection.open_pipe(command, timeout_s=timeout_s)
            try:
                facts = _ask(pipe, mark, script, time.monotonic() + timeout_s)
            finally:
                pipe.close()
            host_key = connection.host_key
    except MachineError as exc:
        return HostReport(where=target.where, host_key=None, facts={}, problems=(str(exc),), warnings=())
    problems, warnings = judge(facts)
    return HostReport(
        where=target.where, host_key=host_key, facts=facts, problems=tuple(problems), warnings=tuple(warnings)
    )


def judge(facts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What these facts mean: problems, and warnings."""
    if "end" not in facts:
        return ["its login shell did not come to our command in time; look at its start-up files"], []
    shells = facts.get("shells", "").split()
    free_kb = int(facts["free-kb"]) if facts.get("free-kb", "").isdigit() else None
    found, home = facts.get("python") or "none", facts.get("home")
    problems = {
        f"no Python 3.8 or newer (found: {found}); install one, or name it with agent_python": not facts.get("usable"),
        f"the home directory {home} cannot be written; the agent lives there": not facts.get("writable"),
        NO_GIT: not facts.get("git"),
        "neither bash nor sh is in the PATH": not {"bash", "sh"} & set(shells),
    }
    warnings = {
        "no bash; jobs run with sh": "bash" not in shells,
        f"only {(free_kb or 0) // 1024} MiB are free in the home directory": free_kb is not None
        and free_kb * 1024 < LEAST_FREE_BYTES,
        "the login is not root and sudo -n is refused; jobs run as the login user and share its files": (
            facts.get("uid") != "0" and not facts.get("sudo")
        ),
        "no git-lfs; files kept in LFS stay pointers": not facts.get("git-lfs"),
        NO_ENGINE: not facts.get("docker"),
    }
    return [text for text, is_so in problems.items() if is_so], [text for text, is_so in warnings.items() if is_so]


def _ask(pipe: Pipe, mark: str, script: bytes, by: float) -> dict[str, str]:
    """Say the script when the shell is there, and read what it says until its end or ours."""
    facts: dict[str, str] = {}
    seen, is_said = bytearray(b"\n"), False
    while "end" not in facts and len(seen) < MAX_ANSWER_BYTES:
        try:
            data = pipe.recv(max(0.0, by - time.monotonic()))
        except PipeTimeout:
            break
        if not data:
            break
        seen += data
        facts = _facts(bytes(seen), mark)
        if "sh" in facts and not is_said:
            is_said = True
            pipe.send(script)
    facts.pop("sh", None)
    return facts


def _facts(seen: bytes, mark: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in seen.split(b"\n")[:-1]:
        if line.startswith(mark.encode() + b" "):
            name, _, value = readable(line).partition(" ")[2].partition(" ")
            facts[name] = value.strip()
    return facts
