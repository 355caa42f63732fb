"""`/metrics`: what the manager counted (`meters`), and what the rows, the last plans and its parts say at the scrape.

Rule: one read transaction for each scrape, and none of it holds anybody up. When the store cannot be read the scrape
still answers, with what needs no store: that is when it is looked at most.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import structlog
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from fleet import __version__
from fleet.gitlab.info import architecture_name, platform_name
from fleet.model.ids import PoolName
from fleet.model.lifecycle import JobState
from fleet.planning.asking import RunnerAsk
from fleet.runtime import logs, rows
from fleet.runtime.families import FAMILIES
from fleet.runtime.lifetimes import Lifetimes
from fleet.runtime.meters import Meters
from fleet.runtime.slots import slots_of
from fleet.runtime.status import readiness
from fleet.sdk import FleetError
from fleet.store.book import Pool, Runner

if TYPE_CHECKING:
    from fleet.runtime.app import Manager
    from fleet.runtime.reloading import Reloader

log = structlog.get_logger(__name__)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Metric = CounterMetricFamily | GaugeMetricFamily
# ours -> GitLab Runner's state and stage; its stages of a script are not told apart
JOB_LABELS = {
    JobState.RECEIVED: ("pending", ""),
    JobState.WAITING: ("running", "prepare_executor"),
    JobState.STARTING: ("running", "prepare_executor"),
    JobState.RUNNING: ("running", "run"),
    JobState.FINISHING: ("finished", ""),
}
# ours -> fleeting's
INSTANCE_LABELS = {
    "requested": "requested",
    "creating": "creating",
    "booting": "pending",
    "preparing": "pending",
    "starting": "pending",
    "ready": "running",
    "draining": "running",
    "stopping": "running",
    "stopped": "running",
    "deleting": "deleting",
}
PROCESS_STATES = {
    "starting": "starting",
    "running": "running",
    "draining": "graceful-shutdown",
    "aborting": "forceful-shutdown",
    "stopped": "forceful-shutdown",
}


class Metrics:
    """Everything that `/metrics` says of one manager."""

    def __init__(self, manager: Manager, meters: Meters, reloader: Reloader | None = None) -> None:
        self.meters = meters
        self.lifetimes = Lifetimes(meters, manager.book, manager.me)
        self._manager = manager
        self._scrape = _Scrape(manager, meters, self.lifetimes, reloader)
        self._one_at_a_time = threading.Lock()
        meters.registry.register(self._scrape)
        ProcessCollector(registry=meters.registry)
        PlatformCollector(registry=meters.registry)
        GCCollector(registry=meters.registry)

    def measure(self) -> int:
        """Count what has happened lately: a controller of a few seconds, so that a scrape finds little left to do."""
        self.lifetimes.waited(self._manager.planner.plans)
        return self._manager.store.read(self.lifetimes.catch_up)

    def text(self) -> bytes:
        """The page."""
        with self._one_at_a_time:
            self._scrape.look()  # first, because it also brings the counters up to date
            return generate_latest(self.meters.registry)


class _Page:
    """The metrics of one scrape, as they are filled in."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}
        for name, family in FAMILIES.items():
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            self.families[name] = kind(name.removesuffix("_total"), family.about, labels=family.labels)

    def set(self, name: str, value: float, *labels: str) -> None:
        self.families[name].add_metric(list(labels), value)


class _Scrape(Collector):
    def __init__(self, manager: Manager, meters: Meters, lifetimes: Lifetimes, reloader: Reloader | None) -> None:
        self._manager = manager
        self._meters = meters
        self._lifetimes = lifetimes
        self._reloader = reloader
        self._page = _Page()

    @override
    def collect(self) -> Iterator[Metric]:
        yield from self._page.families.values()

    def look(self) -> None:
        """Fill the page anew."""
        page = _Page()
        for runner in self._runners():
            self._meters.prepare(runner.short_token, runner.settings.name, runner.pool)
        for pool in self._manager.book.pools:
            self._meters.prepare_pool(*self._lifetimes.who_of_pool(pool)[:2], pool)
        self._of_process(page)
        self._of_runners(page)
        self._of_plans(page)
        self._of_parts(page)
        self._of_rows(page)
        self._page = page

    def _runners(self) -> Sequence[Runner]:
        return [each for each in self._manager.book.runners.values() if not each.retired]

    def _pools(self) -> Sequence[tuple[PoolName, Pool]]:
        """Those that this manager owns: another shows the others, so that sums are right."""
        book = self._manager.book
        return [(name, pool) for name, pool in book.pools.items() if name in book.owned]

    def _who(self, runner: Runner) -> tuple[str, str, str]:
        return runner.short_token, runner.settings.name, self._manager.me

    def _of_process(self, page: _Page) -> None:
        manager = self._manager
        now = PROCESS_STATES.get(manager.state, manager.state)
        for state in dict.fromkeys([*PROCESS_STATES.values(), now]):
            page.set("gitlab_runner_process_state_info", float(state == now), state)
        version = ("fleetctl", __version__, "", platform_name(), architecture_name())
        page.set("gitlab_runner_version_info", 1, *version)
        for level, count in logs.counts.items():
            page.set("gitlab_runner_errors_total", count, level)
        loaded, failed = (0, 0) if self._reloader is None else (self._reloader.loaded, self._reloader.failed)
        page.set("gitlab_runner_configuration_loaded_total", loaded + 1)
        page.set("gitlab_runner_configuration_loading_error_total", failed)
        page.set("gitlab_runner_configuration_saved_total", manager.saver.saved)
        page.set("gitlab_runner_configuration_saving_error_total", manager.saver.failed)
        reasons = readiness(manager)
        page.set("fleet_ready", float(not reasons))
        for reason in reasons:
            page.set("fleet_not_ready", 1, reason.slug)

    def _of_runners(self, page: _Page) -> None:
        manager = self._manager
        concurrent = manager.settings.global_.concurrent
        page.set("gitlab_runner_concurrent", concurrent)
        page.set("gitlab_runner_worker_slots_number", concurrent)
        asks = {ask.runner: ask for ask in manager.intake.states()}
        for runner in self._runners():
            who, hard = self._who(runner), runner.settings.request_concurrency
            ask = asks.get(runner.key) or RunnerAsk(runner=runner.key, pool=runner.pool, request_concurrency=hard)
            adaptive = max(1, min(hard, math.ceil(ask.pace)))
            page.set("gitlab_runner_limit", runner.settings.limit, *who)
            page.set("gitlab_runner_request_concurrency", ask.polls, *who)
            page.set("gitlab_runner_request_concurrency_hard_limit", hard, *who)
            page.set("gitlab_runner_request_concurrency_adaptive_limit", adaptive, *who)
            page.set("gitlab_runner_request_concurrency_used_limit", adaptive if ask.adaptive else hard, *who)
        for short_token, (seconds, total) in self._meters.outages().items():
            page.set("fleet_gitlab_unreachable_seconds", seconds, short_token)
            page.set("fleet_gitlab_outage_seconds_total", total, short_token)

    def _of_plans(self, page: _Page) -> None:
        manager = self._manager
        for name, pool in manager.book.pools.items():
            page.set("fleet_pool_owned", float(name in manager.book.owned), name)
            page.set("fleet_pool_broken", float(pool.provider is None), name)
        for name, pool in self._pools():
            who, limits = self._lifetimes.who_of_pool(name), pool.limits
            page.set("fleeting_provisioner_max_instances", limits.max_instances, *who)
            page.set("fleeting_taskscaler_max_tasks_per_instance", limits.capacity_per_instance, *who)
            page.set("fleeting_taskscaler_max_use_count_per_instance", limits.max_use_count, *who)
            plan = manager.planner.plans.get(name)
            if plan is None:
                continue
            page.set(
                "fleeting_taskscaler_desired_instances", plan.desired_instances, *self._lifetimes.who_of_pool(name)
            )
            page.set("fleet_idle_target_slots", plan.idle_target, name)
            page.set("fleet_policy", -1 if plan.policy is None else plan.policy, name)
            causes: dict[str, int] = {}
            for wait in plan.waits:
                causes[wait.slug.value] = causes.get(wait.slug.value, 0) + 1
            for cause, count in causes.items():
                page.set("fleet_jobs_waiting", count, name, cause)

    def _of_parts(self, page: _Page) -> None:
        manager = self._manager
        controllers = manager.driver.controllers
        for name, controller in controllers.items():
            page.set("fleet_controller_runs_total", controller.runs, name)
            page.set("fleet_controller_failures_total", controller.failures, name)
            page.set("fleet_controller_last_seconds", controller.last_s, name)
        for pool in manager.book.owned:
            who = self._lifetimes.who_of_pool(pool)
            for operation in ("provision", "observe", "reap"):
                runs = controllers[operation].runs if operation in controllers else 0
                page.set("fleeting_provisioner_internal_operations_total", runs, *who, operation)
        page.set("fleet_lane_threads", manager.lanes.threads())
        page.set("fleet_channels", manager.channels.count())
        page.set("fleet_terminal_sessions", manager.executor.terminals.count())
        page.set("fleet_spool_bytes", _bytes_in(manager.settings.fleet.spool_dir))
        for directory in dict.fromkeys((manager.settings.fleet.state_dir, manager.settings.fleet.spool_dir)):
            page.set("fleet_free_bytes", shutil.disk_usage(directory).free, directory)
        failing = manager.heart.failing_since
        page.set("fleet_store_failing_seconds", 0.0 if failing is None else time.monotonic() - failing)

    def _of_rows(self, page: _Page) -> None:
        began = time.monotonic()
        try:
            self._lifetimes.waited(self._manager.planner.plans)
            found = self._manager.store.read(
                lambda tx: (rows.census(tx, self._manager.me), self._lifetimes.catch_up(tx))
            )[0]
        except FleetError as exc:
            log.warning("metrics_without_store", error=str(exc))
            return
        page.set("fleet_store_read_seconds", time.monotonic() - began)
        page.set("fleet_journal_lines_total", found.journal_lines)
        for cooled in found.cool_downs:
            page.set("fleet_cool_down_seconds", (cooled.until - found.now).total_seconds(), cooled.scope)
        self._of_jobs(page, found)
        for name, pool in self._pools():
            self._of_pool(page, found, name, pool.limits.capacity_per_instance)

    def _of_jobs(self, page: _Page, found: rows.Census) -> None:
        counts: dict[tuple[str, ...], int] = {}
        for runner in self._runners():
            for state, stage in JOB_LABELS.values():
                counts[*self._who(runner), state, stage, ""] = 0
        by_pool: dict[tuple[str, str], int] = {}
        for (key, pool, state), count in found.jobs.items():
            labels = (*self._lifetimes.who(key), *JOB_LABELS[JobState(state)], "")
            counts[labels] = counts.get(labels, 0) + count
            by_pool[pool, state] = by_pool.get((pool, state), 0) + count
        for values, count in counts.items():
            page.set("gitlab_runner_jobs", count, *values)
        for (pool, state), count in by_pool.items():
            page.set("fleet_jobs", count, pool, state)

    def _of_pool(self, page: _Page, found: rows.Census, pool: str, capacity: int) -> None:
        who = self._lifetimes.who_of_pool(pool)
        fleeting = dict.fromkeys(INSTANCE_LABELS.values(), 0)
        for (name, state, _), count in found.instances.items():
            if name == pool:
                fleeting[INSTANCE_LABELS[state]] += count
        states: dict[str, int] = {}
        for (name, state, _), count in found.instances.items():
            if name == pool:
                states[state] = states.get(state, 0) + count
        for state in INSTANCE_LABELS:
            page.set("fleet_instances", states.get(state, 0), pool, state)
        for state, count in fleeting.items():
            page.set("fleeting_provisioner_instances", count, *who, state)
        slots = slots_of(found, pool, capacity)
        for state, count in slots.items():
            page.set("fleeting_taskscaler_tasks", count, *who, state)
            page.set("fleet_slots", count, pool, state)
        for state in ("asking", "owed"):
            page.set("fleet_reservations", found.reservations.get((pool, state), 0), pool, state)
        page.set("fleet_ask_limit", found.ask_limits.get(pool, 0), pool)


def _bytes_in(directory: str) -> int:
    try:
        with os.scandir(directory) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except OSError:
        return 0
