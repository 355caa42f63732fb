"""Writes the manager's own lines of a job's log: before the agent's log, after it, and between.

Rule: pure; every line has its instant from the caller. A stamped line is
`2026-01-31T12:00:00.000000Z 00O text`, where 00 is the runner's own stream and O its standard output. A section's
marker and its title are one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from fleet.execution.facts import MachineFacts, RunnerFacts
from fleet.execution.jobfile import Rendered
from fleet.execution.outcome import SUCCESS
from fleet.execution.secrets import Resolved
from fleet.execution.shell_text import GREEN, RED, RESET, YELLOW
from fleet.gitlab.failure_reasons import FailureReason
from fleet.model.job import Outcome

PREPARE_SECTION = "prepare_executor"
SECRETS_SECTION = "resolve_secrets"
_CLEAR = "\x1b[0K"
_CYAN = "\x1b[36;1m"
_STREAM = "00O"


def prologue(
    *,
    runner: RunnerFacts,
    rendered: Rendered,
    machine: MachineFacts,
    address: Iterable[str] = (),
    at: datetime,
    waited_since: datetime | None = None,
    resolved: Resolved | None = None,
) -> bytes:
    """All that stands before the agent's log; `address` are the parts that the log may show.

    `resolved` is what came of the job's secrets. With `waited_since` the section tells how long the job waited for its
    machine.
    """
    stamped = rendered.timestamps
    first = at if resolved is None else resolved.began_at
    lines = [_line(text, first, stamped=stamped) for text in _heading(runner, rendered.changed_flags)]
    if resolved is not None:
        lines += _resolved(resolved, stamped=stamped, sections=rendered.sections)
    began = waited_since or at
    opening = f"section_start:{_unix(began)}:{PREPARE_SECTION}\r{_CLEAR}{_CLEAR}" if rendered.sections else ""
    title = f'{opening}{_CYAN}Preparing the "{runner.executor}" executor{RESET}'
    lines.append(_line(title, began, stamped=stamped))
    where = ", ".join((f"Instance {machine.instance_id} connected", *address))
    lines.append(_line(where, at, stamped=stamped))
    lines += [_line(text, at, stamped=stamped) for text in rendered.notices]
    lines += [_line(f"{YELLOW}WARNING: {text}{RESET}", at, stamped=stamped) for text in rendered.warnings]
    if rendered.sections and rendered.ends_preparing:
        lines.append(_line(f"section_end:{_unix(at)}:{PREPARE_SECTION}\r{_CLEAR}", at, stamped=stamped, ends=False))
    return "".join(lines).encode("utf-8", "replace")


def heading(
    *,
    runner: RunnerFacts,
    at: datetime,
    timestamps: bool = True,
    sections: bool = False,
    resolved: Resolved | None = None,
) -> bytes:
    """The first lines alone, for a job that gets no machine, or not all of its secrets."""
    first = at if resolved is None else resolved.began_at
    lines = [_line(text, first, stamped=timestamps) for text in _heading(runner, ())]
    if resolved is not None:
        lines += _resolved(resolved, stamped=timestamps, sections=sections)
    return "".join(lines).encode("utf-8", "replace")


def epilogue(*, outcome: Outcome, at: datetime, timestamps: bool = True) -> bytes:
    """The last line, which says how the job ended."""
    return _paragraph(_verdict(outcome), GREEN if outcome.state == SUCCESS else RED, at, timestamps)


def notice(text: str, *, at: datetime, timestamps: bool = True) -> bytes:
    """A line about what happened to the job or its log."""
    return _paragraph(text, YELLOW, at, timestamps)


def _heading(runner: RunnerFacts, changed_flags: Iterable[str]) -> list[str]:
    revision = f" ({runner.revision})" if runner.revision else ""
    lines = [
        f"Running with fleet {runner.version}{revision}",
        f"  on {runner.name} {runner.short_token}, system ID: {runner.system_id}",
    ]
    flags = ", ".join(changed_flags)
    return [*lines, f"  feature flags: {flags}"] if flags else lines


def _resolved(resolved: Resolved, *, stamped: bool, sections: bool) -> list[str]:
    """Which secrets were fetched from where: the whole section."""
    began, ended = resolved.began_at, resolved.ended_at
    opening = f"section_start:{_unix(began)}:{SECRETS_SECTION}\r{_CLEAR}{_CLEAR}" if sections else ""
    lines = [_line(f"{opening}{_CYAN}Resolving secrets{RESET}", began, stamped=stamped)]
    lines += [_line(text, ended, stamped=stamped) for text in resolved.lines]
    if sections:
        lines.append(
            _line(f"section_end:{_unix(ended)}:{SECRETS_SECTION}\r{_CLEAR}", ended, stamped=stamped, ends=False)
        )
    return lines


def _verdict(outcome: Outcome) -> str:
    if outcome.state == SUCCESS:
        return "Job succeeded"
    is_ours = outcome.failure_reason == FailureReason.RUNNER_SYSTEM_FAILURE.value
    what = "Job failed (system failure)" if is_ours else "Job failed"
    return f"ERROR: {what}: {outcome.message or outcome.failure_reason or 'no reason is known'}"


def _paragraph(text: str, colour: str, at: datetime, timestamps: bool) -> bytes:
    lines = (_line(f"{colour}{line}{RESET}", at, stamped=timestamps) for line in text.splitlines() or [""])
    return "".join(lines).encode("utf-8", "replace")


def _line(text: str, at: datetime, *, stamped: bool, ends: bool = True) -> str:
    """One line; where nothing is stamped, one that does not end has the next one on it."""
    text = text.replace("\n", " ")
    if not stamped:
        return text + ("\n" if ends else "")
    instant = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f"{instant} {_STREAM} {text}\n"


def _unix(at: datetime) -> int:
    return int(at.timestamp())
