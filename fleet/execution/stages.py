"""The stages of a job in the shell manner, as the job file lists them.

Rule: kinds, names and titles are those of GitLab's log; a stage with nothing to do has an empty script and is not run.
Only the stages that run the user's words, or git, get the variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.execution import artifacts, sources
from fleet.execution.caches import CachePlan, archive_transfer, restore_transfer
from fleet.execution.facts import RunnerFacts
from fleet.execution.git_wishes import GitWishes
from fleet.execution.layout import Layout
from fleet.execution.manner import Manner
from fleet.execution.timeouts import ScriptTimeouts, attempts, within_job
from fleet.execution.variables import Variables
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.payload import JobPayload, Step

AFTER_SCRIPT = "after_script"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]")  # of a section, in GitLab's log

Stage = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInputs:
    """What the stages are written from."""

    payload: JobPayload
    runner: RunnerFacts
    variables: Variables
    flags: Mapping[str, bool]
    layout: Layout
    wishes: GitWishes
    manner: Manner
    timeouts: ScriptTimeouts
    caches: CachePlan = field(default_factory=CachePlan)


def stages_of(given: StageInputs) -> list[Stage]:
    """All stages, in the order of the job file."""
    steps = [step for step in given.payload.steps if step.name != AFTER_SCRIPT]
    return [
        _prepare(given),
        _get_sources(given),
        *_restore_cache(given),
        *_download_artifacts(given),
        *(_step(given, step) for step in steps),
        _after_script(given),
        *_archive_cache(given),
        *_upload_artifacts(given),
        _cleanup(given),
    ]


def _stage(name: str, kind: str, script: str, title: str, **special: Any) -> Stage:
    plain: Stage = {
        "name": name, "kind": kind, "script": script, "title": title, "section": True, "attempts": 1,
        "where": "helper", "before_retry": "", "timeout_s": None, "ignore_errors": False,
        "exit_reason": FailureReason.SCRIPT_FAILURE.value,
    }  # fmt: skip
    return plain | special


def _prepare(given: StageInputs) -> Stage:
    via = f" via {given.runner.manager_host}" if given.runner.manager_host else ""
    script = given.manner.program([given.manner.say_where(via)], with_variables=False)
    return _stage(
        "prepare_script",
        "prepare",
        script,
        "Preparing environment",
        exit_reason=FailureReason.RUNNER_SYSTEM_FAILURE.value,
    )


def _get_sources(given: StageInputs) -> Stage:
    manner, runner = given.manner, given.runner
    before = manner.commands(_texts(runner.pre_get_sources_script), prefix="pre_get_sources_script")
    before += manner.commands(_hook(given.payload, "pre_get_sources_script"), prefix="hook_pre_get_sources")
    after = manner.commands(_hook(given.payload, "post_get_sources_script"), prefix="hook_post_get_sources")
    after += manner.commands(_texts(runner.post_get_sources_script), prefix="post_get_sources_script")
    bring = manner.source_lines(given.wishes, given.layout)
    lacks_git = sources.needs_git(given.wishes) and not given.wishes.has_git
    reason = FailureReason.RUNNER_SYSTEM_FAILURE if lacks_git else FailureReason.SCRIPT_FAILURE
    return _stage(
        "get_sources",
        "get_sources",
        manner.program([*before, *bring, *after]),
        "Getting source from Git repository",
        attempts=attempts(given.variables.get("GET_SOURCES_ATTEMPTS")),
        before_retry=manner.program(manner.clear_worktree_lines(given.layout), with_variables=False),
        timeout_s=within_job(runner.get_sources_timeout_s, given.payload.runner_info.timeout_s),
        exit_reason=reason.value,
    )


def _restore_cache(given: StageInputs) -> list[Stage]:
    transfer = restore_transfer(given.caches, given.layout.project)
    if transfer is None:
        return []
    name, title = "restore_cache", "Restoring cache"
    return [_stage(name, name, "", title, transfer=transfer, attempts=given.caches.attempts, ignore_errors=True)]


def _archive_cache(given: StageInputs) -> list[Stage]:
    """Two stages: what is saved may be another thing after a failure."""
    made = []
    for on, name, title in (
        ("success", "archive_cache", "Saving cache for successful job"),
        ("failure", "archive_cache_on_failure", "Saving cache for failed job"),
    ):
        transfer = archive_transfer(given.caches, given.layout.project, on, given.runner.cache.max_bytes)
        if transfer is not None:
            made.append(_stage(name, "archive_cache", "", title, transfer=transfer, on=on, ignore_errors=True))
    return made


def _download_artifacts(given: StageInputs) -> list[Stage]:
    transfer = artifacts.download(_artifact_inputs(given))
    if transfer is None:
        return []
    name, tries = "download_artifacts", attempts(given.variables.get("ARTIFACT_DOWNLOAD_ATTEMPTS"))
    return [_stage(name, name, "", "Downloading artifacts", transfer=transfer, attempts=tries)]


def _upload_artifacts(given: StageInputs) -> list[Stage]:
    """Two stages: what is uploaded may be another thing after a failure."""
    made = []
    for on, name, title in (
        ("success", "upload_artifacts_on_success", "Uploading artifacts for successful job"),
        ("failure", "upload_artifacts_on_failure", "Uploading artifacts for failed job"),
    ):
        transfer = artifacts.upload(_artifact_inputs(given), on)
        if transfer is not None:
            made.append(_stage(name, "upload_artifacts", "", title, transfer=transfer, on=on))
    return made


def _artifact_inputs(given: StageInputs) -> artifacts.ArtifactInputs:
    return artifacts.ArtifactInputs(
        payload=given.payload,
        runner=given.runner,
        variables=given.variables,
        flags=given.flags,
        project=given.layout.project,
    )


def _step(given: StageInputs, step: Step) -> Stage:
    name = f"step_{_NOT_IN_A_NAME.sub('_', step.name)[:200] or 'script'}"
    return _stage(name, "step", _step_script(given, step), f'Executing "{name}" stage of the job script', where="build")


def _step_script(given: StageInputs, step: Step) -> str:
    if not step.script:
        return ""
    # the lines that GitLab itself writes for `release:` hold variables that no shell is to expand
    script = [given.variables.expand(line) for line in step.script] if step.name == "release" else step.script
    manner, runner = given.manner, given.runner
    return manner.program(
        [
            manner.enter(given.layout.project),
            *manner.commands(_texts(runner.pre_build_script), prefix="pre_build_script"),
            *manner.commands(script, prefix="script_step"),
            *manner.commands(_texts(runner.post_build_script), prefix="post_build_script"),
        ]
    )


def _after_script(given: StageInputs) -> Stage:
    script = [line for step in given.payload.steps if step.name == AFTER_SCRIPT for line in step.script]
    body = [
        given.manner.enter(given.layout.project),
        given.manner.say("Running after script..."),
        *given.manner.commands(script, prefix="after_script_step"),
    ]
    return _stage(
        AFTER_SCRIPT,
        "after_script",
        given.manner.program(body if script else []),
        "Running after_script",
        where="build",
        timeout_s=given.timeouts.after_script_s,
        ignore_errors=given.variables.is_on("AFTER_SCRIPT_IGNORE_ERRORS", default=True),
    )


def _cleanup(given: StageInputs) -> Stage:
    body = given.manner.cleanup_lines(given.wishes, given.layout, thorough=given.flags["FF_ENABLE_JOB_CLEANUP"])
    return _stage(
        "cleanup_file_variables",
        "cleanup",
        given.manner.program(body, with_variables=False),
        "Cleaning up project directory and file based variables",
        ignore_errors=True,
    )


def _texts(script: str) -> list[str]:
    return [script] if script.strip() else []


def _hook(payload: JobPayload, name: str) -> list[str]:
    return [line for hook in payload.hooks if hook.name == name for line in hook.script]
