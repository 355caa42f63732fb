"""Where a job's files lie on the machine.

    <builds>/<short token>/<concurrent project id>/<group>/<project>    the project directory
    <the same>.tmp                                   file variables, credentials; gone after the job

Rule: two jobs that run at once never share a project directory, for the concurrent project id is theirs alone while
they run, and a later job finds the directory of an earlier one again, so that git can fetch instead of clone. The
exceptions are the runner's own wish (`use_common_build_dir`) and the job's (`GIT_CLONE_PATH`, where allowed).
"""

from __future__ import annotations

import posixpath
import urllib.parse
from dataclasses import dataclass

from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.execution.refused import misconfigured
from fleet.gitlab.payload import JobPayload

EMPTY_SUFFIX = "-empty"
OWN_FILES = ".fleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The directories of one job, all absolute."""

    builds: str
    project: str

    @property
    def tmp(self) -> str:
        """What goes with the job."""
        return self.project + ".tmp"

    @property
    def git_config(self) -> str:
        """The file with the credentials, which the repository's own configuration only points to."""
        return f"{self.tmp}/{OWN_FILES}/git.conf"

    @property
    def git_template(self) -> str:
        """What a fresh repository starts from, instead of the machine's template with its hooks."""
        return f"{self.tmp}/{OWN_FILES}/git-template"

    @property
    def env_file(self) -> str:
        """Lines KEY=VALUE that a stage leaves for the later ones."""
        return f"{self.tmp}/gitlab_runner_env"


def default_layout(*, payload: JobPayload, runner: RunnerFacts, machine: MachineFacts, lease: LeaseFacts) -> Layout:
    """The directories when the job does not ask for others."""
    builds = posixpath.normpath(posixpath.join(machine.home or "/", runner.builds_dir or "builds"))
    path = project_path(payload)
    if not runner.use_common_build_dir:
        path = posixpath.join(runner.short_token or "runner", str(lease.project_concurrent_id), path)
    return Layout(builds=builds, project=posixpath.join(builds, path))


def with_clone_path(layout: Layout, clone_path: str, *, allowed: bool) -> Layout:
    """The directories when the job sets GIT_CLONE_PATH; refuses what the runner does not allow."""
    if not clone_path:
        return layout
    if not allowed:
        raise misconfigured(
            "the job sets GIT_CLONE_PATH, and the runner does not allow it: remove the variable, or set"
            " enabled = true in [runners.custom_build_dir]"
        )
    project = posixpath.normpath(posixpath.join(layout.builds, clone_path))
    if not project.startswith(layout.builds.rstrip("/") + "/"):
        raise misconfigured(
            f"GIT_CLONE_PATH is {clone_path!r}, outside of the builds directory: let it begin with $CI_BUILDS_DIR,"
            f" which is {layout.builds!r}"
        )
    return Layout(builds=layout.builds, project=project)


def project_path(payload: JobPayload) -> str:
    """`group/project`, never with a part that leads out of the directory above it."""
    path = payload.job_info.project_full_path
    if not path:
        path = urllib.parse.urlsplit(payload.git_info.repo_url).path.removesuffix(".git")
    parts = [part for part in path.replace("\0", "").split("/") if part]
    if not parts or any(part in {".", ".."} for part in parts):
        return f"project-{payload.job_info.project_id}"
    return "/".join(parts)
