"""What the manager counts while it works, for `/metrics`: rooms are given hooks and know nothing of Prometheus.

Rule: a hook takes a microsecond, never raises, and no label of it is a secret or without bound. What stands in rows is
not counted here but read at the scrape (`fleet.runtime.metrics`) or from the journal (`fleet.runtime.lifetimes`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fleet.planning.asking import Refusal
from fleet.store.book import Runner

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

JOB_BUCKETS = (30, 60, 300, 600, 1800, 3600, 7200, 10800, 18000, 36000)
QUEUE_BUCKETS = (1, 3, 10, 30, 60, 120, 300, 900, 1800, 3600)
CALL_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
MACHINE_BUCKETS = (0.5, 1, 2, 5, 10, 15, 30, 60, 90, 120, 180, 240, 300, 600)
LIFE_BUCKETS = (60, 300, 600, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 172800, 604800)
FEED_FAILURES = ("no_free_executor", "job_failure", "other")
RUNNER = ("runner", "runner_name", "system_id")
STOPPED = -2  # a call that we ended ourselves says nothing of the server


class Meters:
    """All counters of one manager. Thread-safe."""

    def __init__(self, system_id: str) -> None:
        self.system_id = system_id
        self.registry = CollectorRegistry(auto_describe=False)
        self._failing: dict[str, float] = {}  # short token -> since when GitLab gives it no answer
        self._outage: dict[str, float] = {}  # short token -> seconds of outages that are over
        self._lock = threading.Lock()
        self._calls()
        self._runners()
        self._machines()

    def _counter(self, name: str, what: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, what, tuple(labels), registry=self.registry)

    def _histogram(self, name: str, what: str, labels: Iterable[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, tuple(labels), registry=self.registry, buckets=buckets)

    def _calls(self) -> None:
        self.statuses = self._counter(
            "gitlab_runner_api_request_statuses",
            "Calls to GitLab by answer; a negative status stands for no answer.",
            ("runner", "system_id", "endpoint", "status", "method"),
        )
        self.call_seconds = self._histogram(
            "gitlab_runner_api_request_duration_seconds",
            "How long calls to GitLab took, without polls that were held.",
            ("runner", "system_id", "endpoint"),
            CALL_BUCKETS,
        )
        self.retries = self._counter(
            "gitlab_runner_api_request_retries", "Requests that were sent again.", ("path", "method")
        )
        self.feeds = self._counter("gitlab_runner_worker_feeds", "Polls that were begun.")
        self.feed_failures = self._counter(
            "gitlab_runner_worker_feed_failures", "Runners that could not be polled because they are unhealthy."
        )
        self.health_failures = self._counter(
            "gitlab_runner_worker_health_check_failures", "Polls that GitLab refused.", RUNNER
        )
        self.processing_failures = self._counter(
            "gitlab_runner_worker_processing_failures",
            "Polls and jobs that came to nothing.",
            (*RUNNER, "failure_type"),
        )
        self.concurrency_exceeded = self._counter(
            "gitlab_runner_request_concurrency_exceeded", "Polls that had to wait for another.", RUNNER
        )

    def _runners(self) -> None:
        self.jobs = self._counter("gitlab_runner_jobs", "Jobs that were taken.", RUNNER)
        self.job_seconds = self._histogram(
            "gitlab_runner_job_duration_seconds",
            "From taking a job to its end.",
            (*RUNNER, "mode"),
            JOB_BUCKETS,
        )
        self.queue_seconds = self._histogram(
            "gitlab_runner_job_queue_duration_seconds",
            "How long jobs had waited in GitLab when they were taken.",
            (*RUNNER, "project_jobs_running"),
            QUEUE_BUCKETS,
        )
        self.failed = self._counter(
            "gitlab_runner_failed_jobs", "Jobs that failed.", (*RUNNER, "failure_reason", "mode")
        )
        self.wait_seconds = self._counter(
            "fleet_job_wait_seconds", "Seconds that jobs waited for a machine, by cause.", ("pool", "cause")
        )
        self.start_seconds = self._histogram(
            "fleet_job_start_seconds",
            "From taking a job to its first command.",
            ("pool",),
            (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600),
        )

    def _machines(self) -> None:
        labels = (*RUNNER, "pool")
        for name, attribute, what, buckets in (
            (
                "provisioner_instance_creation_time",
                "creation",
                "From a request to its machine's name.",
                MACHINE_BUCKETS,
            ),
            (
                "provisioner_instance_is_running_time",
                "running",
                "From a request to a running machine.",
                MACHINE_BUCKETS,
            ),
            ("provisioner_instance_deletion_time", "deletion", "From deleting to gone.", MACHINE_BUCKETS),
            ("provisioner_instance_life_duration", "life", "From a request to gone.", LIFE_BUCKETS),
            ("taskscaler_task_instance_readiness_time", "readiness", "From a request to ready.", MACHINE_BUCKETS),
        ):
            setattr(self, attribute, self._histogram(f"fleeting_{name}_seconds", what, labels, buckets))
        self.missed_updates = self._counter(
            "fleeting_provisioner_missed_updates", "Listings that failed or were not complete.", labels
        )
        self.instance_operations = self._counter(
            "fleeting_provisioner_instance_operations", "What became of instances.", (*labels, "operation")
        )
        self.task_operations = self._counter(
            "fleeting_taskscaler_task_operations", "What became of slots.", (*labels, "operation")
        )
        self.scale_operations = self._counter(
            "fleeting_taskscaler_scale_operations", "Instances asked for and let go.", (*labels, "operation")
        )
        self.tidyings = self._counter("fleet_tidyings", "How machines low on disk were tidied.", ("pool", "outcome"))
        self.tidied_things = self._counter("fleet_tidied_things", "What was removed from them.", ("pool", "kind"))
        self.tidied_bytes = self._counter("fleet_tidied_bytes", "Room that this made.", ("pool", "kind"))
        self.least_free_bytes = Gauge(
            "fleet_machine_least_free_bytes",
            "Free bytes on the fullest disk of the pool's machines.",
            ("pool",),
            registry=self.registry,
        )

    creation: Histogram
    running: Histogram
    deletion: Histogram
    life: Histogram
    readiness: Histogram

    # --- hooks for the rooms ---

    def request_seen(self, *, endpoint: str, method: str, status: int, seconds: float, runner: str) -> None:
        """A call to GitLab has ended: `Servers(observe=...)`."""
        self.statuses.labels(runner, self.system_id, endpoint, str(status), method).inc()
        if endpoint == "request_job":
            self.feeds.inc()
        if endpoint != "request_job" or status != 204:
            self.call_seconds.labels(runner, self.system_id, endpoint).observe(seconds)
        if status == STOPPED:
            return
        with self._lock:
            if status < 0 or status >= 500:
                self._failing.setdefault(runner, time.monotonic())
            elif (since := self._failing.pop(runner, None)) is not None:
                self._outage[runner] = self._outage.get(runner, 0.0) + time.monotonic() - since

    def retry_seen(self, *, path: str, method: str) -> None:
        """A request is sent again: `Servers(count_retry=...)`."""
        self.retries.labels(path, method).inc()

    def job_queued(self, *, runner: str, runner_name: str, seconds: float, project_jobs_running: str = "") -> None:
        """A job was taken that had waited in GitLab for so long (`job_info` of its payload)."""
        self.queue_seconds.labels(runner, runner_name, self.system_id, project_jobs_running).observe(seconds)

    def poll_not_begun(self, *, runner: str, runner_name: str, refusal: str) -> None:
        """A runner could not ask: `refusal` is one of `planning.asking.Refusal`."""
        if refusal == "unhealthy":
            self.feed_failures.inc()
        elif refusal == "poll_in_the_air":
            self.concurrency_exceeded.labels(runner, runner_name, self.system_id).inc()
        elif refusal in {"no_free_slot", "concurrent", "limit"}:
            self.processing_failures.labels(runner, runner_name, self.system_id, "no_free_executor").inc()

    def poll_refused(self, *, runner: str, runner_name: str) -> None:
        """GitLab refused a poll (403), which counts against the runner's health."""
        self.health_failures.labels(runner, runner_name, self.system_id).inc()

    def listing_failed(self, *, runner: str, runner_name: str, pool: str) -> None:
        """A provider's listing failed or was not complete."""
        self.missed_updates.labels(runner, runner_name, self.system_id, pool).inc()

    # --- the tidier's watcher ---

    def tidied(self, pool: str, outcome: str, removed: Mapping[str, int], freed_bytes: Mapping[str, int]) -> None:
        """A machine was tidied, or refused."""
        self.tidyings.labels(pool, outcome).inc()
        for kind, count in removed.items():
            self.tidied_things.labels(pool, kind).inc(count)
        for kind, count in freed_bytes.items():
            self.tidied_bytes.labels(pool, kind).inc(count)

    def least_free(self, free_bytes: Mapping[str, int]) -> None:
        """The room on the fullest disk of each pool's machines."""
        self.least_free_bytes.clear()
        for pool, count in free_bytes.items():
            self.least_free_bytes.labels(pool).set(count)

    # --- intake's watcher ---

    def taken(self, runner: Runner, waited_s: float, project_jobs_running: str) -> None:
        """A job was taken that had waited in GitLab for so long."""
        self.job_queued(
            runner=runner.short_token,
            runner_name=runner.settings.name,
            seconds=waited_s,
            project_jobs_running=project_jobs_running,
        )

    def not_begun(self, runner: Runner, refusal: Refusal) -> None:
        """The runner could ask before, and cannot now."""
        self.poll_not_begun(runner=runner.short_token, runner_name=runner.settings.name, refusal=refusal)

    def refused(self, runner: Runner) -> None:
        """GitLab refused a poll."""
        self.poll_refused(runner=runner.short_token, runner_name=runner.settings.name)

    # --- for the collector ---

    def outages(self) -> Mapping[str, tuple[float, float]]:
        """Short token -> (seconds since its server last answered, seconds of all outages so far)."""
        now = time.monotonic()
        with self._lock:
            names = set(self._failing) | set(self._outage)
            running = {name: now - self._failing[name] if name in self._failing else 0.0 for name in names}
            return {name: (running[name], self._outage.get(name, 0.0) + running[name]) for name in names}

    def prepare(self, runner: str, runner_name: str, pool: str) -> None:
        """Show the series of a runner with 0 before anything has happened."""
        who = (runner, runner_name, self.system_id)
        for counter in (self.jobs, self.health_failures, self.concurrency_exceeded):
            counter.labels(*who)
        for kind in FEED_FAILURES:
            self.processing_failures.labels(*who, kind)
        self.job_seconds.labels(*who, "traditional")
        self.queue_seconds.labels(*who, "")
        self.start_seconds.labels(pool)

    def prepare_pool(self, runner: str, runner_name: str, pool: str) -> None:
        """Show the series of a pool with 0 before anything has happened."""
        labels = (runner, runner_name, self.system_id, pool)
        for histogram in (self.creation, self.running, self.deletion, self.life, self.readiness):
            histogram.labels(*labels)
        self.missed_updates.labels(*labels)
        for counter, operations in (
            (self.instance_operations, ("create", "delete", "fail")),
            (
                self.task_operations,
                ("acquire", "release", "lose", "reserve_available_capacity_failure", "reserve_iop_capacity_failure"),
            ),
            (self.scale_operations, ("up", "down")),
        ):
            for operation in operations:
                counter.labels(*labels, operation)
