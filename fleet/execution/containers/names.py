"""Names of containers, volumes and networks, and their labels: GitLab Runner's, so that people find their way.

Rule: a volume's name depends on the runner's identity (url and id, never the token), the project and the slot, so the
next job of the same kind finds it again, and no other does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.execution.facts import LeaseFacts, RunnerFacts
from fleet.gitlab.payload import JobPayload

PREFIX = "com.gitlab.gitlab-runner."
PROTECTED = "-protected"
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of one job."""

    unique: str
    mark: str
    volumes: str
    network: str
    is_protected: bool

    def container(self, kind: str) -> str:
        """Of a container: `build`, `predefined`, or a service."""
        return f"{self.unique}-{self.mark}-{_clean(kind)}"

    def volume(self, destination: str, *, is_kept: bool) -> str:
        """Of the volume at a place in the containers; one that ends with the job has the job's mark."""
        place = hashlib.md5(destination.encode(), usedforsecurity=False).hexdigest()
        if not is_kept:
            return f"{self.unique}-{self.mark}-cache-{place}"
        return f"{self.volumes}-cache-{place}{PROTECTED if self.is_protected else ''}"


def names_of(payload: JobPayload, runner: RunnerFacts, lease: LeaseFacts) -> Names:
    """The names for a job in its slot."""
    project, slot = payload.job_info.project_id, lease.project_concurrent_id
    token = runner.short_token or "runner"
    whole = f"{runner.server_url}|{runner.runner_id}-{runner.system_id}-{project}-{slot}"
    return Names(
        unique=_clean(f"runner-{token}-project-{project}-concurrent-{slot}"),
        mark=hashlib.sha256(lease.lease_id.encode()).hexdigest()[:8],
        volumes=f"runner-{hashlib.sha256(whole.encode()).hexdigest()[:32]}",
        network=_clean(f"runner-{token}-{project}-{slot}-{payload.id}"),
        is_protected=is_protected(payload),
    )


def is_protected(payload: JobPayload) -> bool:
    """Whether volumes are apart from those of unprotected refs.

    Where GitLab does not say, the first definition of the variable counts: it is GitLab's, later ones are the user's.
    """
    if any(cache.key.endswith(PROTECTED) for cache in payload.cache):
        return True
    if payload.git_info.protected is not None:
        return payload.git_info.protected
    said = (each.value for each in payload.variables if each.key == "CI_COMMIT_REF_PROTECTED")
    return next(said, "") == "true"


def labels_of(payload: JobPayload, runner: RunnerFacts, lease: LeaseFacts) -> dict[str, str]:
    """What is on everything that is made for a job."""
    info, git = payload.job_info, payload.git_info
    url = next((each.value for each in payload.variables if each.key == "CI_JOB_URL"), "")
    found: Mapping[str, object] = {
        "managed": "true",
        "job.id": payload.id,
        "job.url": url,
        "job.sha": git.sha,
        "job.before_sha": git.before_sha,
        "job.ref": git.ref,
        "job.timeout": f"{payload.runner_info.timeout_s}s",
        "project.id": info.project_id,
        "project.runner_id": lease.project_concurrent_id,
        "pipeline.id": info.pipeline_id,
        "runner.id": runner.short_token,
        "runner.local_id": lease.concurrent_id,
        "runner.system_id": runner.system_id,
    }
    return {f"{PREFIX}{name}": str(value) for name, value in found.items()}


def label(name: str, value: object) -> dict[str, str]:
    """One more label of ours."""
    return {f"{PREFIX}{name}": str(value)}


def _clean(text: str) -> str:
    return _NOT_IN_A_NAME.sub("-", text.lower()).strip("-")[:180]
