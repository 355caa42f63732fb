"""What a job uploads and downloads as artifacts, as the `transfer` of a stage of the job file.

Rule: pure. Words of the job (paths, names, times) are expanded here; formats and types go through as GitLab named them,
so that every report works, also one of a later GitLab. Each token stands in the transfer and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.execution.cleaning import clean
from fleet.execution.facts import RunnerFacts
from fleet.execution.timeouts import parse_duration_s
from fleet.execution.variables import Variables
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.payload import Artifact, JobPayload

LEVELS = ("fastest", "fast", "default", "slow", "slowest")
WHEN: Mapping[str, tuple[str, ...]] = {  # `when` -> after which outcome of the steps it is uploaded
    "": ("success",), "on_success": ("success",), "on_failure": ("failure",), "always": ("success", "failure"),
}  # fmt: skip
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
PROVENANCE = "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/v19.4.0/PROVENANCE.md"  # describes the statement

Transfer = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInputs:
    """What the transfers are written from."""

    payload: JobPayload
    runner: RunnerFacts
    variables: Variables
    flags: Mapping[str, bool]
    project: str


def upload(given: ArtifactInputs, on: str) -> Transfer | None:
    """What is uploaded when the steps ended with `success` or `failure`; None for nothing."""
    wanted = [each for each in given.payload.artifacts if on in WHEN.get(each.when, ())]
    items = [_item(given, each) for each in wanted if each.paths or each.untracked]
    if not items:
        return None
    level = given.variables.get("ARTIFACT_COMPRESSION_LEVEL").strip().lower()
    return _transfer(given, "upload_artifacts", items) | {
        "job_id": given.payload.id,
        "token": given.payload.token,
        "level": level if level in LEVELS else "default",
        "metadata": _statement(given),
    }


def download(given: ArtifactInputs) -> Transfer | None:
    """What is fetched of the jobs before; None for nothing."""
    items = [
        {
            "id": each.id,
            "token": each.token,
            "name": clean(each.name),
            "filename": clean(each.artifacts_file.filename),
            "size": each.artifacts_file.size,
        }
        for each in given.payload.dependencies
        if each.artifacts_file.filename
    ]
    if not items:
        return None
    return _transfer(given, "download_artifacts", items) | {
        "direct": given.flags.get("FF_USE_DIRECT_DOWNLOAD", True),
        "keep_links": given.variables.is_on("FLEET_KEEP_OUTWARD_LINKS", default=False),
    }


def _transfer(given: ArtifactInputs, do: str, items: list[dict[str, Any]]) -> Transfer:
    runner, variables = given.runner, given.variables
    return {
        "do": do,
        "api": f"{Endpoint(url=runner.server_url).url}/api/v4/",
        "tls": {"ca": runner.tls_ca, "cert": runner.tls_cert, "key": runner.tls_key},
        "environment": {name: value for name in PROXIES if (value := variables.get(name))},
        "root": given.project,
        "items": items,
        "meter_s": max(0.0, parse_duration_s(variables.get("TRANSFER_METER_FREQUENCY").strip() or "0") or 0.0),
        "timeout_s": runner.artifact_upload_timeout_s,
        "header_timeout_s": runner.artifact_header_timeout_s,
    }


def _item(given: ArtifactInputs, artifact: Artifact) -> dict[str, Any]:
    def expanded(text: str) -> str:
        return clean(given.variables.expand(text))

    return {
        "name": expanded(artifact.name),
        "paths": [expanded(path) for path in artifact.paths],
        "exclude": [expanded(path) for path in artifact.exclude],
        "untracked": artifact.untracked,
        "format": artifact.artifact_format,
        "type": artifact.artifact_type,
        "expire_in": expanded(artifact.expire_in),
    }


def _statement(given: ArtifactInputs) -> dict[str, Any] | None:
    """The provenance statement but for its subjects and instants, when the job wants one."""
    variables, runner, payload = given.variables, given.runner, given.payload
    if not variables.is_on("RUNNER_GENERATE_ARTIFACTS_METADATA", default=False):
        return None
    source = variables.get("CI_PROJECT_URL")
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": PROVENANCE,
                "externalParameters": {
                    **{each.key: "" for each in payload.variables},
                    "entryPoint": payload.job_info.name,
                    "source": source,
                },
                "internalParameters": {
                    "architecture": runner.executable_arch.partition("/")[2],
                    "executor": runner.executor,
                    "job": str(payload.id),
                    "name": runner.name,
                },
                "resolvedDependencies": [{"uri": source, "digest": {"sha256": payload.git_info.sha}}],
            },
            "runDetails": {
                "builder": {"id": f"{source}/-/runners/{runner.runner_id}", "version": {"fleet": runner.version}},
                "metadata": {"invocationID": str(payload.id)},
            },
        },
    }
