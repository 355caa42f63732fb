"""Refuses or warns about what a payload asks for and the shell manner does not do.

Rule: what would make the job do something else than its author wrote is refused; what GitLab Runner's shell executor
ignores is ignored; what is merely missing is said in the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.execution.refused import unsupported
from fleet.gitlab.payload import Image, JobPayload

KNOWN_EXECUTOR_OPTIONS: Mapping[str, frozenset[str]] = {
    "docker": frozenset(("platform", "user")),
    "kubernetes": frozenset(("user",)),
}


def refuse_unsupported(payload: JobPayload) -> None:
    """Raise `JobRefused` for what no stage could stand for."""
    found = [
        *(["run (native steps)"] if payload.run.strip() not in {"", "null", "[]"} else ()),
        *_unknown_options("image", payload.image),
        *(option for service in payload.services for option in _unknown_options(f"services:{service.name}", service)),
    ]
    if found:
        raise unsupported(", ".join(found))


def warnings_about(payload: JobPayload) -> list[str]:
    """What the job goes without."""
    found = []
    suspend = payload.suspend_options
    if suspend is not None and (
        suspend.suspend_on_success or suspend.suspend_on_failure or suspend.runtime_environment_key
    ):
        found.append(
            "this job asks to keep its environment or to go on in one: this runner starts and ends each job anew"
        )
    return found


def notices_about(payload: JobPayload) -> list[str]:
    """What GitLab wants the job's author to know of the policy that made the job."""
    policy = payload.policy_options
    if policy is None or not policy.execution_policy_job:
        return []
    first = f'Job triggered by policy "{policy.policy_name}".'
    if policy.policy_variables_override_allowed is None:
        return [first, "The policy's variables beat those of the same name that the project or a person set."]
    verdict = "allowed" if policy.policy_variables_override_allowed else "ignored"
    exceptions = policy.policy_variables_override_exceptions
    but = f" (except for {', '.join(exceptions)})" if exceptions else ""
    return [
        first,
        f"User-defined CI/CD variables are {verdict} in this job{but} according to the pipeline execution policy.",
    ]


def _unknown_options(where: str, image: Image) -> Iterator[str]:
    for executor, options in image.executor_opts.items():
        known = KNOWN_EXECUTOR_OPTIONS.get(executor)
        if known is None:
            yield f"{where}: {executor}"
        else:
            yield from (f"{where}: {executor}: {name}" for name in _names(options) if name not in known)


def _names(options: Any) -> Iterator[str]:
    return iter(options) if isinstance(options, dict) else iter(())
