"""Builds the JSON that `POST jobs/request` hands to a runner, complete and realistic.

Rule: what depends on the one hand-over (job id, job token, this server's address) is left `None`
in the template and filled by `personalise`, so a job that is handed out again gets a new token.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import secrets
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

Payload = dict[str, Any]

RUNNER_FAILURE_REASONS = (
    "unknown_failure", "script_failure", "api_failure", "runner_system_failure", "job_execution_timeout",
    "image_pull_failure", "runner_configuration_error", "runner_external_dependency_failure",
    "runner_interrupted",
)  # fmt: skip
_pipelines = itertools.count(501)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A commit of a project served by the pretend GitLab (`PretendGitLab.commit` makes one)."""

    project: str
    sha: str
    ref: str = "main"
    ref_type: str = "branch"
    depth: int = 20
    before_sha: str = "0" * 40
    protected: bool = False

    @property
    def refspecs(self) -> list[str]:
        """What GitLab asks for: the one ref, under the name a clone would give it."""
        if self.ref_type == "tag":
            return [f"+refs/tags/{self.ref}:refs/tags/{self.ref}"]
        return [f"+refs/heads/{self.ref}:refs/remotes/origin/{self.ref}"]


def make_job(
    *,
    script: Sequence[str] = ("echo hello",),
    after_script: Sequence[str] | None = None,
    variables: Mapping[str, str] | Sequence[Mapping[str, Any]] = (),
    timeout: int = 3600,
    image: str | Mapping[str, Any] | None = None,
    git: GitSource | None = None,
    name: str = "job",
    stage: str = "test",
    project: str = "demo/project",
    project_id: int = 7,
    pipeline_id: int | None = None,
    allow_failure: bool = False,
    **overrides: Any,
) -> Payload:
    """One payload in GitLab's shape; `overrides` replace top-level fields as they are given.

    Without `git` the job gets `GIT_STRATEGY=none`. `variables` may be a mapping, or GitLab's own
    list of objects, whose missing attributes are filled in.
    """
    pipeline = next(_pipelines) if pipeline_id is None else pipeline_id
    source = git or GitSource(project=project, sha=hashlib.sha1(b"none", usedforsecurity=False).hexdigest())
    payload: Payload = {
        "id": None,
        "token": None,
        "allow_git_fetch": True,
        "job_info": _job_info(name, stage, source.project, project_id, pipeline),
        "git_info": _git_info(source, pipeline),
        "runner_info": {"timeout": timeout, "uuid": secrets.token_hex(16)},
        "inputs": [],
        "variables": [
            *_predefined(name, stage, source, project_id, pipeline),
            *([] if git else [_variable("GIT_STRATEGY", "none")]),
            *_given(variables),
        ],
        "steps": _steps(script, after_script, timeout, allow_failure=allow_failure),
        "image": {"name": image} if isinstance(image, str) else image and dict(image),
        "services": [],
        "artifacts": None,
        "cache": [],
        "credentials": [],
        "dependencies": [],
        "features": {
            "trace_sections": True,
            "token_mask_prefixes": ["glpat-", "glcbt-", "glrt-"],
            "failure_reasons": list(RUNNER_FAILURE_REASONS),
        },
        "hooks": [],
    }
    return payload | overrides


def personalise(payload: Payload, *, job_id: int, token: str, server_url: str) -> Payload:
    """A copy for one hand-over; only what the template left `None` is filled."""
    fresh: Payload = {**payload}
    fresh["id"] = job_id if payload.get("id") is None else payload["id"]
    fresh["token"] = token
    info = payload.get("job_info") or {}
    repo_url = _repo_url(server_url, str(info.get("project_full_path", "")), token)
    if payload.get("git_info") and payload["git_info"].get("repo_url") is None:
        fresh["git_info"] = {**payload["git_info"], "repo_url": repo_url}
    values = {
        "CI_JOB_ID": str(job_id),
        "CI_JOB_TOKEN": token,
        "CI_JOB_URL": f"{server_url}/{info.get('project_full_path', '')}/-/jobs/{job_id}",
        "CI_REPOSITORY_URL": repo_url,
        "CI_SERVER_URL": server_url,
        "CI_API_V4_URL": f"{server_url}/api/v4",
        "CI_SERVER_HOST": urllib.parse.urlsplit(server_url).hostname or "",
        "CI_SERVER_PORT": str(urllib.parse.urlsplit(server_url).port or ""),
        "CI_PROJECT_URL": f"{server_url}/{info.get('project_full_path', '')}",
    }
    fresh["variables"] = [
        {**item, "value": values[item["key"]]} if item.get("value") is None and item.get("key") in values else item
        for item in payload.get("variables") or ()
    ]
    return fresh


def _repo_url(server_url: str, project: str, token: str) -> str:
    at = urllib.parse.urlsplit(server_url)
    return f"{at.scheme}://gitlab-ci-token:{token}@{at.netloc}/{project}.git"


def _job_info(name: str, stage: str, project: str, project_id: int, pipeline: int) -> Payload:
    return {
        "name": name, "stage": stage, "pipeline_id": pipeline,
        "project_id": project_id, "project_name": project.rsplit("/", 1)[-1], "project_full_path": project,
        "namespace_id": 3, "root_namespace_id": 3, "organization_id": 1, "user_id": 42, "scoped_user_id": None,
        "instance_id": "pretend", "instance_uuid": "00000000-0000-4000-8000-000000000001",
        "time_in_queue_seconds": 0.25, "project_jobs_running_on_instance_runners_count": "0",
        "queue_size": 1, "queue_depth": 1,
    }  # fmt: skip


def _git_info(source: GitSource, pipeline: int) -> Payload:
    return {
        "repo_url": None, "repo_object_format": "sha1", "ref": source.ref, "sha": source.sha,
        "before_sha": source.before_sha, "ref_type": source.ref_type,
        "refspecs": [f"+{source.sha}:refs/pipelines/{pipeline}", *source.refspecs],
        "depth": source.depth, "protected": source.protected,
    }  # fmt: skip


def _steps(
    script: Sequence[str], after_script: Sequence[str] | None, timeout: int, *, allow_failure: bool
) -> list[Payload]:
    steps: list[Payload] = [
        {"name": "script", "script": list(script), "timeout": timeout, "when": "on_success",
         "allow_failure": allow_failure},
    ]  # fmt: skip
    if after_script is not None:
        steps.append(
            {"name": "after_script", "script": list(after_script), "timeout": timeout, "when": "always",
             "allow_failure": True}
        )  # fmt: skip
    return steps


def _predefined(name: str, stage: str, source: GitSource, project_id: int, pipeline: int) -> list[Payload]:
    public: dict[str, str | None] = {
        "CI": "true", "GITLAB_CI": "true", "CI_SERVER": "yes", "CI_SERVER_NAME": "GitLab",
        "CI_SERVER_VERSION": "18.6.0", "CI_SERVER_URL": None, "CI_SERVER_HOST": None, "CI_SERVER_PORT": None,
        "CI_API_V4_URL": None, "CI_JOB_ID": None, "CI_JOB_URL": None, "CI_JOB_NAME": name, "CI_JOB_STAGE": stage,
        "CI_PIPELINE_ID": str(pipeline), "CI_PIPELINE_SOURCE": "push", "CI_PROJECT_ID": str(project_id),
        "CI_PROJECT_NAME": source.project.rsplit("/", 1)[-1], "CI_PROJECT_PATH": source.project,
        "CI_PROJECT_NAMESPACE": source.project.rsplit("/", 1)[0], "CI_PROJECT_URL": None,
        "CI_COMMIT_SHA": source.sha, "CI_COMMIT_SHORT_SHA": source.sha[:8], "CI_COMMIT_REF_NAME": source.ref,
        "CI_COMMIT_BEFORE_SHA": source.before_sha, "CI_COMMIT_REF_SLUG": source.ref.replace("/", "-"),
        "CI_COMMIT_REF_PROTECTED": "true" if source.protected else "false",
        ("CI_COMMIT_TAG" if source.ref_type == "tag" else "CI_COMMIT_BRANCH"): source.ref,
    }  # fmt: skip
    hidden: dict[str, str | None] = {"CI_JOB_TOKEN": None, "CI_REPOSITORY_URL": None}
    return [
        *(_variable(key, value) for key, value in public.items()),
        *(_variable(key, value, public=False, masked=key == "CI_JOB_TOKEN") for key, value in hidden.items()),
    ]


def _given(variables: Mapping[str, str] | Sequence[Mapping[str, Any]]) -> list[Payload]:
    if isinstance(variables, Mapping):
        return [_variable(key, value) for key, value in variables.items()]
    return [_variable("", "") | dict(item) for item in variables]


def _variable(key: str, value: str | None, *, public: bool = True, masked: bool = False) -> Payload:
    return {"key": key, "value": value, "public": public, "file": False, "masked": masked, "raw": False}
