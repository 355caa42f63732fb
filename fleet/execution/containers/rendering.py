"""Where the job file of the shell manner becomes one of the container manner.

Rule: scripts are the same; what differs is where they run, whose files are whose, and what stands around them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet.execution.containers.images import with_image
from fleet.execution.containers.names import names_of
from fleet.execution.containers.section import SectionInputs, has_own_network, section_of
from fleet.execution.facts import LeaseFacts, MachineFacts, RunnerFacts
from fleet.gitlab.payload import JobPayload

SHELL = "sh"  # the detector in the container may find bash, and this machine's helper stages are run by sh
BY_HELPER = "of the helper image"


def adapted(
    payload: JobPayload, runner: RunnerFacts, machine: MachineFacts
) -> tuple[JobPayload, RunnerFacts, MachineFacts]:
    """Payload, runner and machine as a job in containers sees them; the same for every other job."""
    docker = runner.docker
    if docker is None:
        return payload, runner, machine
    runner = replace(runner, shell=SHELL, user=None, reads_secrets=False, login=False)
    return with_image(payload, docker), runner, replace(machine, git=machine.git or BY_HELPER, shells=(SHELL,))


def network_name(payload: JobPayload, runner: RunnerFacts, lease: LeaseFacts, flags: dict[str, bool]) -> str:
    """The job's own network, where it gets one."""
    if runner.docker is None or not has_own_network(payload, runner.docker, flags):
        return ""
    return names_of(payload, runner, lease).network


def contained(job_file: dict[str, Any], given: SectionInputs) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The job file with its containers, and warnings; the same for every other job."""
    if given.runner.docker is None:
        return job_file, ()
    section = section_of(given)
    changed = {
        "containers": section.containers,
        "directories": [entry | {"mode": section.directory_mode} for entry in job_file["directories"]],
        "files": [entry | {"mode": section.file_mode} for entry in job_file["files"]],
    }
    return job_file | changed, section.warnings
