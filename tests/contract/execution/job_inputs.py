"""Facts and payloads for tests of execution, each with its one thing changed."""

from __future__ import annotations

import dataclasses
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.jobfile import Rendered, render
from fleet.execution.variables import Variable
from fleet.gitlab.payload import JobPayload

RUNNER = RunnerFacts(
    name="pool-a", short_token="abcdefghi", runner_id=7, system_id="s_0123456789ab", version="0.1.0",
    server_url="http://gitlab.invalid", login=False,
)  # fmt: skip
LEASE = LeaseFacts(lease_id="lease-1", concurrent_id=3, project_concurrent_id=1)


def machine_at(home: pathlib.Path | str, **changes: Any) -> MachineFacts:
    return dataclasses.replace(MachineFacts(instance_id="i-1", home=str(home), user="ci", git="2.39.5"), **changes)


def payload_of(
    *,
    script: Sequence[str] = ("echo hello",),
    after_script: Sequence[str] = (),
    variables: Mapping[str, str] | Sequence[Mapping[str, Any]] = (),
    token: str = "",
    **changes: Any,
) -> JobPayload:
    """A payload without sources (GIT_STRATEGY=none) unless `git_info` says otherwise."""
    given = variables.items() if isinstance(variables, Mapping) else ()
    listed = [{"key": key, "value": value} for key, value in given] or [dict(item) for item in variables]
    first = [] if "git_info" in changes else [{"key": "GIT_STRATEGY", "value": "none"}]
    steps = [{"name": "script", "script": list(script)}]
    if after_script:
        steps.append({"name": "after_script", "script": list(after_script)})
    whole = {
        "id": 4711,
        "token": token or secrets.token_hex(10),
        "job_info": {"name": "test", "project_id": 42, "project_full_path": "group/project"},
        "runner_info": {"timeout": 3600},
        "variables": first + listed,
        "steps": steps,
        "features": {"trace_sections": True},
    }
    return JobPayload.model_validate(whole | changes)


def render_with(
    payload: JobPayload,
    home: pathlib.Path | str = "/home/ci",
    *,
    lease: LeaseFacts = LEASE,
    machine: MachineFacts | None = None,
    secrets: Sequence[Variable] = (),
    **runner: Any,
) -> Rendered:
    return render(
        payload=payload,
        runner=dataclasses.replace(RUNNER, **runner),
        machine=machine or machine_at(home),
        lease=lease,
        secrets=secrets,
    )


def stage_named(rendered: Rendered, name: str) -> dict[str, Any]:
    return next(stage for stage in rendered.job_file["stages"] if stage["name"] == name)
