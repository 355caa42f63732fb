"""Turns a job's payload into the job file that the agent runs (docs/reference/agent-frames.md).

Rule: pure. The same payload, runner, machine and lease give the same job file; whatever cannot be run as its author
wrote it is refused here (`JobRefused`), before anything has happened on a machine. It leaves the start to whoever has
the channel, and the manager's own lines of the log to `trace_lines`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.execution import flags as feature_flags
from fleet.execution import git_credentials, inputs, masks, support
from fleet.execution.caches import CachePlan, plan_of
from fleet.execution.cleaning import cleaned
from fleet.execution.containers.rendering import adapted, contained, network_name
from fleet.execution.containers.section import SectionInputs
from fleet.execution.exports import FILE_MODE, Exports, exports_of
from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.git_wishes import GitWishes, Strategy, git_wishes, strategy_of
from fleet.execution.layout import EMPTY_SUFFIX, Layout, default_layout, with_clone_path
from fleet.execution.manner import Manner
from fleet.execution.powershell import PowerShellManner
from fleet.execution.refused import misconfigured
from fleet.execution.scripts import ShellManner
from fleet.execution.shell_text import RESET, YELLOW
from fleet.execution.sources import needs_git
from fleet.execution.stages import StageInputs, stages_of
from fleet.execution.timeouts import script_timeouts, within_job
from fleet.execution.variables import Variable, Variables, definitions
from fleet.gitlab.payload import JobPayload

FORMAT = 1
ABORT_GRACE_S = 10
DIRECTORY_MODE = 0o700
POWERSHELLS = ("pwsh", "powershell")
SHELLS = ("bash", "sh", *POWERSHELLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A job file and what the manager needs beside it.

    Attributes:
        warnings: for the log's first lines; no secret is in them.
        changed_flags: `FF_NAME:value` of each flag that is not at its default.
        timeout_s: the job's own; counts from when it was received.
        prepare_timeout_s: how long to wait for a machine; None is as long as the job may take.
        timestamps, sections: how the manager's own lines are to be written.
        debug_trace: for the query of each trace update.
        caches: where archives of caches lie; addresses are signed for them and nothing else.
        ends_preparing: the section of the preparation ends with the manager's own lines; else the agent ends it.
        notices: for the log's first lines, and no warnings.
    """

    job_file: dict[str, Any] = field(repr=False)
    warnings: tuple[str, ...]
    changed_flags: tuple[str, ...]
    timeout_s: int
    prepare_timeout_s: float | None
    timestamps: bool
    sections: bool
    debug_trace: bool
    caches: CachePlan = field(default_factory=CachePlan)
    ends_preparing: bool = True
    notices: tuple[str, ...] = ()


def variables_of(
    *, payload: JobPayload, runner: RunnerFacts, machine: MachineFacts, lease: LeaseFacts
) -> tuple[Variables, dict[str, bool]]:
    """The variables and feature flags of a job before it has its secrets; raises `JobRefused`."""
    payload, runner, machine = adapted(payload, runner, machine)
    payload, _ = cleaned(payload)
    flags, _ = _flags(payload, runner)
    return _placed(payload, runner, machine, lease, flags=flags)[1], flags


def render(
    *,
    payload: JobPayload,
    runner: RunnerFacts,
    machine: MachineFacts,
    lease: LeaseFacts,
    secrets: Sequence[Variable] = (),
) -> Rendered:
    """The job file of this payload on this machine, with its secrets; raises `JobRefused`."""
    support.refuse_unsupported(payload)
    payload, runner, machine = adapted(payload, runner, machine)
    payload, warnings = cleaned(payload)
    flags, flag_warnings = _flags(payload, runner)
    payload, input_warnings = inputs.filled(payload, is_on=flags["FF_ENABLE_JOB_INPUTS_INTERPOLATION"])
    layout, variables = _placed(payload, runner, machine, lease, flags=flags, secrets=secrets)
    wishes = git_wishes(
        payload=payload, runner=runner, machine=machine, lease=lease, variables=variables, flags=flags, layout=layout
    )
    caches = plan_of(payload=payload, runner=runner, machine=machine, variables=variables, flags=flags)
    expanded = variables.expanded()
    exports = exports_of(variables, expanded)
    wants_trace = variables.is_on("CI_DEBUG_TRACE", default=False)
    timeouts = script_timeouts(
        script=variables.get("RUNNER_SCRIPT_TIMEOUT"),
        after_script=variables.get("RUNNER_AFTER_SCRIPT_TIMEOUT"),
        job_s=payload.runner_info.timeout_s,
    )
    manner = _manner(
        _shell(runner, machine),
        exports,
        layout,
        is_traced=wants_trace and not runner.debug_trace_disabled,
        checks_each_command=flags["FF_ENABLE_BASH_EXIT_CODE_CHECK"],
        has_sections=flags["FF_SCRIPT_SECTIONS"] and payload.features.trace_sections,
    )
    stages = stages_of(
        StageInputs(
            payload=payload,
            runner=runner,
            variables=variables,
            flags=flags,
            layout=layout,
            wishes=wishes,
            manner=manner,
            timeouts=timeouts,
            caches=caches,
        )
    )
    job_file = {
        "format": FORMAT,
        "lease": lease.lease_id,
        "job_id": payload.id,
        "user": _user(runner, machine),
        "shell": manner.shell,
        "login": runner.login,
        "cwd": layout.builds,
        "environment": {},
        "directories": _directories(layout),
        "files": _files(
            payload=payload,
            runner=runner,
            wishes=wishes,
            variables=variables,
            flags=flags,
            layout=layout,
            exports=exports,
        ),
        "timeout_s": payload.runner_info.timeout_s,
        "script_timeout_s": timeouts.script_s,
        "abort_grace_s": ABORT_GRACE_S,
        "cleanup_paths": [layout.tmp],
        "keeps": [{"path": layout.project, "root": layout.builds}],
        "terminal": {"program": manner.prelude(layout.project)},
        "trace": _trace(payload, runner, expanded, flags),
        "stages": stages,
    }
    job_file, container_warnings = contained(
        job_file,
        SectionInputs(
            payload=payload,
            runner=runner,
            machine=machine,
            lease=lease,
            variables=variables,
            expanded=expanded,
            flags=flags,
            layout=layout,
            keeps_builds=wishes.strategy is Strategy.FETCH,
        ),
    )
    warnings += container_warnings
    warnings += [*flag_warnings, *input_warnings, *exports.warnings, *timeouts.warnings]
    warnings += [*caches.warnings, *support.warnings_about(payload)]
    if wants_trace and runner.debug_trace_disabled:
        warnings.append("CI_DEBUG_TRACE is set, and this runner does not allow debug traces: it has no effect")
    return Rendered(
        job_file=job_file,
        warnings=tuple(warnings),
        changed_flags=tuple(feature_flags.changed(flags)),
        timeout_s=payload.runner_info.timeout_s,
        prepare_timeout_s=within_job(runner.prepare_timeout_s, payload.runner_info.timeout_s),
        timestamps=flags["FF_TIMESTAMPS"],
        sections=payload.features.trace_sections,
        debug_trace=manner.is_traced,
        caches=caches,
        ends_preparing=runner.docker is None,
        notices=tuple(support.notices_about(payload)),
    )


def charge_prologue(job_file: dict[str, Any], prologue_bytes: int) -> dict[str, Any]:
    """The same job file, where the agent's log may be as long as the prologue leaves of the limit."""
    trace = job_file["trace"]
    return job_file | {"trace": trace | {"limit_bytes": max(0, trace["limit_bytes"] - prologue_bytes)}}


def _flags(payload: JobPayload, runner: RunnerFacts) -> tuple[dict[str, bool], list[str]]:
    """Read before there are variables, which in turn hold the flags; the runner's `environment` counts, too."""
    named = [(item.partition("=")[0], item.partition("=")[2]) for item in runner.environment]
    said = {key: value for key, value in named if key in feature_flags.DEFAULTS}
    said |= {given.key: given.value for given in payload.variables if given.key in feature_flags.DEFAULTS}
    return feature_flags.resolve(runner.feature_flags, said.get)


def _placed(
    payload: JobPayload,
    runner: RunnerFacts,
    machine: MachineFacts,
    lease: LeaseFacts,
    *,
    flags: Mapping[str, bool],
    secrets: Sequence[Variable] = (),
) -> tuple[Layout, Variables]:
    """Directories and variables: each is read from the other, so from the default directories to the final ones."""
    network = network_name(payload, runner, lease, dict(flags))

    def variables_in(layout: Layout) -> Variables:
        found = definitions(
            payload=payload, runner=runner, lease=lease, layout=layout, flags=flags, secrets=secrets, network=network
        )
        return Variables(found, tmp=layout.tmp)

    first = default_layout(payload=payload, runner=runner, machine=machine, lease=lease)
    variables = variables_in(first)
    layout = with_clone_path(first, variables.get("GIT_CLONE_PATH").strip(), allowed=runner.custom_build_dir)
    if strategy_of(payload, variables) is Strategy.EMPTY:
        layout = Layout(builds=layout.builds, project=layout.project + EMPTY_SUFFIX)
    return (layout, variables) if layout == first else (layout, variables_in(layout))


def _shell(runner: RunnerFacts, machine: MachineFacts) -> str:
    names = {posixpath.basename(shell) for shell in machine.shells}
    shell = runner.shell or next((each for each in SHELLS if each in names), "sh")
    if shell not in SHELLS:
        raise misconfigured(f"the runner's shell is {shell!r}: this manager runs scripts with {', '.join(SHELLS)}")
    if names and shell not in names:
        raise misconfigured(f"the runner's shell is {shell!r}, and machine {machine.instance_id} has {sorted(names)}")
    return shell


def _manner(
    shell: str,
    exports: Exports,
    layout: Layout,
    *,
    is_traced: bool,
    checks_each_command: bool,
    has_sections: bool,
) -> Manner:
    if shell in POWERSHELLS:  # which looks at the exit code of each command anyway
        return PowerShellManner(
            shell=shell, exports=exports, env_file=layout.env_file, is_traced=is_traced, has_sections=has_sections
        )
    return ShellManner(
        shell=shell,
        exports=exports,
        env_file=layout.env_file,
        is_traced=is_traced,
        checks_each_command=checks_each_command,
        has_sections=has_sections,
    )


def _user(runner: RunnerFacts, machine: MachineFacts) -> str | None:
    if runner.reads_secrets:
        raise misconfigured(
            f"jobs on this host would run as {runner.user or machine.user!r}, who can read the manager's secrets: name"
            " another user in the runner's entry, or set allow_same_user = true in [fleet]"
        )
    if not runner.user or runner.user == machine.user:
        return None
    if not machine.is_root:
        raise misconfigured(
            f"jobs are to run as {runner.user!r}, and the agent on {machine.instance_id} is {machine.user!r} without"
            " root: let it log in as root or with passwordless sudo, or change the runner's user"
        )
    return runner.user


def _directories(layout: Layout) -> list[dict[str, Any]]:
    own = posixpath.dirname(layout.git_config)
    return [{"path": path, "mode": DIRECTORY_MODE} for path in (layout.tmp, own, layout.git_template)]


def _files(
    *,
    payload: JobPayload,
    runner: RunnerFacts,
    wishes: GitWishes,
    variables: Variables,
    flags: Mapping[str, bool],
    layout: Layout,
    exports: Exports,
) -> list[dict[str, Any]]:
    files = list(exports.files)
    if needs_git(wishes) and wishes.has_git:
        text = git_credentials.config_text(
            payload=payload, runner=runner, wishes=wishes, variables=variables, flags=flags
        )
        files.append((layout.git_config, text))
        files.append((f"{layout.git_template}/config", git_credentials.template_text(layout)))
    return [{"path": path, "mode": FILE_MODE, "text": text} for path, text in files]


def _trace(
    payload: JobPayload, runner: RunnerFacts, expanded: tuple[Variable, ...], flags: Mapping[str, bool]
) -> dict[str, Any]:
    limit_bytes = runner.output_limit_kib << 10
    return {
        "limit_bytes": limit_bytes,
        "limit_notice": (
            f"\n{YELLOW}The job's log has reached its limit of {limit_bytes} bytes."
            f" The job goes on; nothing more of its output is kept.{RESET}\n"
        ),
        "timestamps": flags["FF_TIMESTAMPS"],
        "sections": payload.features.trace_sections,
        "masks": masks.phrases(payload, expanded),
        "mask_prefixes": masks.prefixes(payload, flags),
        "mask_parameters": list(masks.PARAMETERS),
    }
