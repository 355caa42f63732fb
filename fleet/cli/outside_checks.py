"""What the manager needs of others: GitLab for each runner, the provider of each pool, and hosts that are given.

Rule: everything outside may hang, so each thing is asked on a thread of its own and given up after its time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import asdict, is_dataclass
from typing import TypeVar

from fleet.cli.checks import Finding, fail, ok, warn
from fleet.cli.entries import client_for, info_for
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.outcomes import Doubt, Refused, Verified
from fleet.machine.keys import make_key_pair
from fleet.machine.probe import NO_ENGINE, NO_GIT, HostReport, probe
from fleet.machine.reach import target_for
from fleet.model.ids import InstanceId, PoolName, RequestId
from fleet.model.instance import Instance
from fleet.model.lifecycle import InstanceState
from fleet.runtime.clock import Clock
from fleet.runtime.providers import Plugins
from fleet.sdk import FleetError, Machine, PipeEndpoint, Provider
from fleet.settings.entries import CONTAINER_EXECUTORS
from fleet.settings.pools import PoolSettings
from fleet.settings.runner import RunnerSettings
from fleet.settings.settings import Settings
from fleet.store.book import Pool
from fleet.store.pools import PoolRow

T = TypeVar("T")
PATIENCE_S = 60.0
PROBES_AT_ONCE = 16


class NoAnswer(FleetError):
    """It did not answer in its time, or broke while answering."""

    slug = "no_answer"


def within(seconds: float, work: Callable[[], T]) -> Future[T]:
    """Start work on a thread; it ends with a result or a FleetError. After its time its thread is left behind."""
    future: Future[T] = Future()

    def settle(result: T | None, error: FleetError | None) -> None:
        with contextlib.suppress(InvalidStateError):  # the other end was first
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

    timer = threading.Timer(seconds, settle, [None, NoAnswer(f"no answer within {seconds:g} s")])
    timer.daemon = True

    def run() -> None:
        try:
            settle(work(), None)
        except FleetError as exc:
            settle(None, exc)
        except Exception as exc:  # noqa: BLE001  a plugin's call: whatever it raises becomes a finding
            settle(None, NoAnswer(f"it broke: {type(exc).__name__}: {exc}"))
        timer.cancel()

    timer.start()
    threading.Thread(target=run, daemon=True).start()
    return future


def of_gitlab(settings: Settings, system_id: str) -> Iterator[Finding]:
    """GitLab, asked for each runner whether its token is good."""
    asked = [(runner, within(PATIENCE_S, lambda r=runner: _verified(r, system_id))) for runner in settings.runners]  # type: ignore[misc]
    for runner, answer in asked:
        about = f"runner {runner.shown_as}"
        try:
            yield answer.result()
        except FleetError as exc:
            yield fail(about, str(exc))
    for stopped in settings.stopped:
        yield fail(f"runner {stopped.name or stopped.key}", stopped.reason)


def _verified(runner: RunnerSettings, system_id: str) -> Finding:
    about = f"runner {runner.shown_as}"
    endpoint = Endpoint(
        url=runner.url,
        tls_ca_file=runner.tls_ca_file,
        tls_cert_file=runner.tls_cert_file,
        tls_key_file=runner.tls_key_file,
    )
    with client_for(endpoint) as gitlab:
        gitlab.check_files()
        answer = gitlab.verify(
            token=runner.token.get_secret_value(),
            system_id=system_id,
            info=info_for(runner.executor, runner.shell, runner.labels),
        )
    match answer:
        case Verified():
            return ok(about, f"{runner.url} knows its token")
        case Refused(reason=reason):
            return fail(about, f"{runner.url} refuses its token: {reason}; register it again, or drop its entry")
        case Doubt(reason=reason):
            return fail(about, f"{runner.url} gives no answer that helps: {reason}; look at address and network")


def of_pools(settings: Settings, rows: Iterable[PoolRow], store_id: str) -> Iterator[Finding]:
    """The provider of each pool: can it be made, and does it list; then the hosts that are given."""
    plugins, known = Plugins(), {row.pool: row for row in rows}
    containers = {each.pool for each in settings.runners if each.executor in CONTAINER_EXECUTORS}
    for pool in settings.pools:
        about = f"pool {pool.name}"
        try:
            provider = plugins.provider(pool, state_dir=settings.fleet.state_dir, store_id=store_id)
        except FleetError as exc:
            yield fail(about, str(exc))
            continue
        try:
            machines = within(provider.info().call_timeout_s, lambda p=provider: list(p.list())).result()  # type: ignore[misc]
        except FleetError as exc:
            yield fail(about, f"its plugin {pool.plugin} cannot list machines: {exc}")
            continue
        finally:
            provider.close()
        ours = sum(machine.tags.get("fleet-pool") == pool.name for machine in machines)
        yield ok(about, f"plugin {pool.plugin} answers; {ours} machines carry the pool's name")
        if pool.fixed_inventory:
            for finding in _of_hosts(pool, provider, machines, known.get(pool.name)):
                yield _in_containers(finding) if pool.name in containers else finding


def _in_containers(finding: Finding) -> Finding:
    """What is missing weighs otherwise where jobs run in containers: the engine is needed, git is not."""
    if finding.message == NO_ENGINE:
        return fail(finding.about, f"{NO_ENGINE}: install it, or name its socket with host in [runners.docker]")
    if finding.message == NO_GIT:
        return warn(finding.about, "no git; sources are fetched in a container of helper_image")
    return finding


def _of_hosts(
    pool: PoolSettings, provider: Provider, machines: Iterable[Machine], row: PoolRow | None
) -> Iterator[Finding]:
    reached = [machine for machine in machines if not isinstance(machine.endpoint, PipeEndpoint)]
    made = _pool(pool, provider, row)
    for at in range(0, len(reached), PROBES_AT_ONCE):
        some = reached[at : at + PROBES_AT_ONCE]
        asked = [(each, within(PATIENCE_S, lambda m=each: _probed(m, made))) for each in some]  # type: ignore[misc]
        for machine, answer in asked:
            about = f"host {machine.machine_id}"
            try:
                report = answer.result()
            except FleetError as exc:
                yield fail(about, str(exc))
            else:
                yield from _of_report(about, report)


def _of_report(about: str, report: HostReport) -> Iterator[Finding]:
    for problem in report.problems:
        yield fail(about, problem)
    for warning in report.warnings:
        yield warn(about, warning)
    if report.is_fit:
        yield ok(about, f"{report.where}: {report.facts.get('system', '')}, {report.facts.get('usable', '')}")


def _probed(machine: Machine, pool: Pool) -> HostReport:
    endpoint = machine.endpoint
    now = Clock().now()
    instance = Instance(
        instance_id=InstanceId(machine.machine_id),
        pool=pool.name,
        request_id=RequestId(""),
        placement="",
        state=InstanceState.BOOTING,
        state_at=now,
        state_by=None,
        created_at=now,
        machine_id=machine.machine_id,
        address={
            "internal": machine.address_internal,
            "external": machine.address_external,
            "port": machine.port,
            "user": machine.user,
            "endpoint": asdict(endpoint) if endpoint is not None and is_dataclass(endpoint) else None,
        },
        host_keys=(machine.host_key,) if machine.host_key else (),
    )
    return probe(target_for(instance, pool), python=pool.settings.fleet.agent_python)


def _pool(settings: PoolSettings, provider: Provider, row: PoolRow | None) -> Pool:
    fresh = make_key_pair() if row is None else None  # before the first start the pool has no key of its own yet
    return Pool(
        name=PoolName(settings.name),
        limits=settings.limits(),
        settings=settings,
        provider=provider,
        info=provider.info(),
        problem=None,
        client_key=fresh.private if fresh is not None else row.client_key if row is not None else "",
        client_public_key=fresh.public if fresh is not None else row.client_public_key if row is not None else "",
    )
