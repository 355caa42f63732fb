"""The metrics that are read at each scrape: their names, labels and meaning, and nothing else.

Rule: names of GitLab Runner keep its meaning, so that dashboards made for it work. A pool that several runners share is
shown under the first of them, with our own label `pool` beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RUNNER = ("runner", "runner_name", "system_id")
POOL = (*RUNNER, "pool")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        kind: `gauge` or `counter`.
    """

    kind: str
    about: str
    labels: tuple[str, ...] = ()


def _gauge(about: str, *labels: str) -> Family:
    return Family("gauge", about, labels)


def _counter(about: str, *labels: str) -> Family:
    return Family("counter", about, labels)


FAMILIES: Mapping[str, Family] = {
    # GitLab Runner's
    "gitlab_runner_jobs": _gauge("Jobs of this manager.", *RUNNER, "state", "stage", "executor_stage"),
    "gitlab_runner_concurrent": _gauge("Jobs that may run at once."),
    "gitlab_runner_limit": _gauge("Jobs that may run at once of one runner; 0 is no limit.", *RUNNER),
    "gitlab_runner_request_concurrency": _gauge("Polls in the air.", *RUNNER),
    "gitlab_runner_request_concurrency_hard_limit": _gauge("The most polls at once, as configured.", *RUNNER),
    "gitlab_runner_request_concurrency_adaptive_limit": _gauge("The most polls at once, as adapted.", *RUNNER),
    "gitlab_runner_request_concurrency_used_limit": _gauge("The most polls at once that is in force.", *RUNNER),
    "gitlab_runner_worker_slots_number": _gauge("As `gitlab_runner_concurrent`."),
    "gitlab_runner_errors_total": _counter("Lines of the log, by level.", "level"),
    "gitlab_runner_configuration_loaded_total": _counter("Times the configuration came into force."),
    "gitlab_runner_configuration_loading_error_total": _counter("Times a changed file could not be used."),
    "gitlab_runner_configuration_saved_total": _counter("Times the manager saved the file."),
    "gitlab_runner_configuration_saving_error_total": _counter("Times it could not."),
    "gitlab_runner_process_state_info": _gauge("1 for the state that the manager is in.", "state"),
    "gitlab_runner_version_info": _gauge("1.", "name", "version", "revision", "os", "architecture"),
    # fleeting's and taskscaler's
    "fleeting_provisioner_instances": _gauge("Instances that are not gone.", *POOL, "state"),
    "fleeting_provisioner_max_instances": _gauge("The most instances; 0 is no limit.", *POOL),
    "fleeting_provisioner_internal_operations_total": _counter("Runs of the hands.", *POOL, "operation"),
    "fleeting_taskscaler_tasks": _gauge("Job slots.", *POOL, "state"),
    "fleeting_taskscaler_max_tasks_per_instance": _gauge("Job slots of one instance.", *POOL),
    "fleeting_taskscaler_max_use_count_per_instance": _gauge("Jobs in the life of one instance; 0 is no limit.", *POOL),
    "fleeting_taskscaler_desired_instances": _gauge("Instances that the last plan wanted.", *POOL),
    # ours
    "fleet_ready": _gauge("1 while `/health/ready` says yes."),
    "fleet_not_ready": _gauge("1 for each reason that it says no.", "reason"),
    "fleet_jobs": _gauge("Open jobs of this manager.", "pool", "state"),
    "fleet_jobs_waiting": _gauge("Jobs without a machine, by what they wait for.", "pool", "cause"),
    "fleet_instances": _gauge("Instances that are not gone, by their own life-cycle.", "pool", "state"),
    "fleet_slots": _gauge("Job slots.", "pool", "state"),
    "fleet_reservations": _gauge("Slots that are promised: to polls, and to jobs without a machine.", "pool", "state"),
    "fleet_ask_limit": _gauge("Polls that the pool may hold.", "pool"),
    "fleet_idle_target_slots": _gauge("Free slots that the policy in force wants.", "pool"),
    "fleet_policy": _gauge("Index of the policy in force; -1 when none is.", "pool"),
    "fleet_pool_owned": _gauge("1 when this manager makes and deletes the pool's machines.", "pool"),
    "fleet_pool_broken": _gauge("1 when the pool's provider cannot be made.", "pool"),
    "fleet_cool_down_seconds": _gauge("Seconds until a scope may be tried again.", "scope"),
    "fleet_controller_runs_total": _counter("Runs of a controller.", "controller"),
    "fleet_controller_failures_total": _counter("Runs that failed.", "controller"),
    "fleet_controller_last_seconds": _gauge("How long the last run took.", "controller"),
    "fleet_lane_threads": _gauge("Threads for work on the outside, idle ones included."),
    "fleet_channels": _gauge("Open channels to agents."),
    "fleet_terminal_sessions": _gauge("Open terminals beside jobs."),
    "fleet_spool_bytes": _gauge("Traces on this host that GitLab has not accepted yet."),
    "fleet_free_bytes": _gauge("Free bytes on the disk of a directory.", "directory"),
    "fleet_store_read_seconds": _gauge("How long the read for this scrape took."),
    "fleet_store_failing_seconds": _gauge("Seconds since the store last took a write; 0 when it does."),
    "fleet_journal_lines_total": _counter("Number of the newest line of the journal."),
    "fleet_gitlab_unreachable_seconds": _gauge(
        "Seconds since GitLab last answered a runner; 0 when it does.", "runner"
    ),
    "fleet_gitlab_outage_seconds_total": _counter("Seconds without an answer so far.", "runner"),
}
