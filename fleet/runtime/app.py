"""The composition root: makes a manager out of its rooms, runs it, and takes it down.

What is here knows every room; no room knows another. Order matters twice: at the start nothing acts before the session
holds its claims, and at the end intake stops first and the store last.
"""

from __future__ import annotations

import pathlib
import secrets
import socket
import threading
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import make_url

from fleet import __version__
from fleet.applying.planner import Planner
from fleet.applying.requests import Intents
from fleet.execution.desk import Desk
from fleet.execution.executor import Executor
from fleet.execution.features import features_of
from fleet.gitlab.cancel import Cancel
from fleet.gitlab.identity import system_id
from fleet.intake.acknowledging import Acknowledger
from fleet.intake.asking import Intake
from fleet.intake.rotating import Rotator
from fleet.leasing.keeping import Keeper
from fleet.leasing.readiness import Readiness
from fleet.leasing.tidying import Tidier
from fleet.machine.channels import Channels
from fleet.model.ids import ManagerId, PoolName
from fleet.provisioning.creating import Creator
from fleet.provisioning.observing import Observer
from fleet.reaping.deleting import Reaper
from fleet.reporting.reporter import Reporter
from fleet.reporting.rows import RowListener
from fleet.reporting.targets import Reports
from fleet.runtime.cache_stores import CacheStores
from fleet.runtime.clock import Clock, monotonic
from fleet.runtime.configuring import Configurator
from fleet.runtime.disk import Disks
from fleet.runtime.driver import Controller, Driver, Hints
from fleet.runtime.facts import facts_of_runner
from fleet.runtime.heart import Heart
from fleet.runtime.lanes import Lanes
from fleet.runtime.locks import Locks
from fleet.runtime.logs import configure
from fleet.runtime.meters import Meters
from fleet.runtime.providers import Plugins
from fleet.runtime.saving import Saver
from fleet.runtime.servers import Servers
from fleet.runtime.sessions import Sessions
from fleet.runtime.stepping import ClockWatch
from fleet.runtime.upkeep import Upkeep, mark_path
from fleet.settings.changes import diff, until_restart
from fleet.settings.settings import Settings
from fleet.store import managers, restore
from fleet.store.book import Book
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.seal import Seal, key_from_file
from fleet.store.spool import Spool

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Manager:
    """A manager with all its rooms, from `open` to `close`.

    Attributes:
        stop_asking: set once no more jobs are to be taken.
        state: running, draining, aborting, stopped; for logs and status.
        file_problem: why the configuration file as it is now is not in force; None when it is.
    """

    settings: Settings
    clock: Clock
    store: Store
    me: ManagerId
    session: str
    locks: Locks
    book: Book
    configurator: Configurator
    servers: Servers
    meters: Meters
    lanes: Lanes
    driver: Driver
    hints: Hints
    channels: Channels
    spool: Spool
    reporter: Reporter
    listener: RowListener
    planner: Planner
    executor: Executor
    intake: Intake
    heart: Heart
    disks: Disks
    upkeep: Upkeep
    saver: Saver
    stop_asking: Cancel
    state: str = "starting"
    file_problem: str | None = None
    sweeping_off: str | None = None
    _closed: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to act. On return every controller runs."""
        self.heart.start()
        self.driver.start()
        self.state = "running"
        log.info("manager_started", manager=self.me, version=__version__, pools=len(self.book.pools))

    def reconfigure(self, settings: Settings) -> None:
        """Bring a changed configuration into force; what holds from the start to the end keeps its value."""
        changes = diff(self.settings, settings)
        if changes.keys_at_start:
            log.warning("restart_needed", keys=list(changes.keys_at_start), kept="the values of the start")
        settings = until_restart(self.settings, settings)
        self.configurator.apply(settings)
        self.settings = settings
        configure(settings.global_.log_level, settings.global_.log_format)
        self.disks.reserve_bytes = settings.fleet.reserve_free_bytes
        self.upkeep.settings = settings.fleet
        self.intake.concurrent = settings.global_.concurrent
        self.intake.check_interval_s = settings.global_.check_interval
        self.intake.forgive()
        self.claim()
        self.hints("plan", "intake", "observe", "prune")

    def let_go(self, names: list[PoolName]) -> None:
        """Treat these pools as retired until we end: their machines are deleted."""
        changed = {
            name: replace(pool, limits=replace(pool.limits, retired=True)) if name in names else pool
            for name, pool in self.book.pools.items()
        }
        self.book.replace(changed, self.book.runners)
        self.hints("plan")

    def claim(self) -> int:
        """Take what nobody alive owns: pools, and the jobs of dead managers."""

        def take(tx: Tx) -> tuple[dict[str, int], list[str]]:
            return managers.claim_pools(tx, self.me), managers.take_over_jobs(tx, self.me)

        owned, taken = self.store.write(take)
        self.book.set_owned(owned)
        if taken:
            log.warning("jobs_taken_over", jobs=len(taken))
            self.hints("execute", "acknowledge")
        return len(taken)

    def claims_lost(self) -> None:
        """Another manager may have taken our work over: start a session anew and go by the rows alone."""
        self.store.write(
            lambda tx: managers.begin_session(
                tx,
                self.me,
                session=self.session,
                version=__version__,
                host=socket.gethostname(),
                api=self.settings.fleet.api_listen,
                ttl=self.settings.fleet.manager_claim_ttl,
            )
        )
        self.executor.start_over()  # before we may speak again: these jobs may be another manager's by now
        self.heart.beat()
        self.claim()
        self.hints("execute", "plan", "keep")

    def close(self, reason: str, *, patience_s: float = 2.0) -> None:
        """Take everything down; running jobs go on without us.

        What is still under way after `patience_s` is cut off: that is like a crash in that place, and does no harm.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        self.stop_asking.set()
        until = monotonic() + patience_s
        self.driver.close(patience_s / 2)
        self.lanes.close(max(0.1, until - monotonic()))
        for end in (self._fall_silent, lambda: self._leave(reason), self._let_go_of_all):
            thread = threading.Thread(target=end, name="closing", daemon=True)
            thread.start()
            thread.join(max(0.3, until - monotonic()))
        self.state = "stopped"
        log.info("manager_stopped", manager=self.me, reason=reason)

    def _fall_silent(self) -> None:
        self.reporter.close()
        self.heart.stop()
        self.channels.close_all()

    def _let_go_of_all(self) -> None:
        self.servers.close()
        self.configurator.close()
        self.spool.close()
        self.store.close()
        self.locks.release()

    def _leave(self, reason: str) -> None:
        """Let our claims end now, unless the database is away: then they run out by themselves."""
        if self.heart.failing_since is not None:
            log.warning("session_not_ended", manager=self.me, error="the database is away")
            return
        try:
            self.listener.trace_sent(self.reporter.progress())
            self.store.write(lambda tx: managers.end_session(tx, self.me, self.session, reason))
        except StoreError as exc:
            log.warning("session_not_ended", manager=self.me, error=str(exc))


def open_store(settings: Settings, clock: Clock) -> Store:
    """The store that the settings name, not opened yet."""
    given = settings.fleet.secret_key
    key = (
        given.get_secret_value()
        if given is not None
        else key_from_file(pathlib.Path(settings.fleet.secret_key_file), create=not settings.fleet.secret_key_named)
    )
    return Store(settings.fleet.database.get_secret_value(), Seal(key), clock.now)


def database_directory(settings: Settings) -> tuple[str, ...]:
    """Where a database that is a file grows; nothing for a server."""
    url = make_url(settings.fleet.database.get_secret_value())
    return (str(pathlib.Path(url.database).parent),) if url.drivername == "sqlite" and url.database else ()


def open_manager(
    settings: Settings,
    *,
    store: Store,
    clock: Clock,
    locks: Locks,
    plugins: Plugins,
    saver: Saver,
    session: str | None = None,
) -> Manager:
    """Make a manager on an open store: its session holds its claims, and nothing acts yet."""
    me = ManagerId(system_id(pathlib.Path(settings.path).parent))
    session = session or secrets.token_hex(8)
    store_id = store.write(lambda tx: managers.store_identity(tx, secrets.token_hex(8)))
    restored = store.write(lambda tx: restore.stop_sweeping_if_restored(mark_path(settings.fleet.state_dir), tx))
    if restored is not None:
        log.error("database_restored", reason=restored, until="fleetctl store sweep on")
    store.write(
        lambda tx: managers.begin_session(
            tx,
            me,
            session=session,
            version=__version__,
            host=socket.gethostname(),
            api=settings.fleet.api_listen,
            ttl=settings.fleet.manager_claim_ttl,
        )
    )
    book = Book(store_id)
    configurator = Configurator(store=store, book=book, plugins=plugins, state_dir=settings.fleet.state_dir)
    configurator.apply(settings)
    return _assemble(
        settings, store, clock, locks, me=me, session=session, book=book, configurator=configurator, saver=saver
    )


def _assemble(
    settings: Settings,
    store: Store,
    clock: Clock,
    locks: Locks,
    *,
    me: ManagerId,
    session: str,
    book: Book,
    configurator: Configurator,
    saver: Saver,
) -> Manager:
    hints, lanes, channels, stop_asking = Hints(), Lanes(), Channels(), Cancel()
    driver = Driver()
    hints.connect(driver.wake)
    spool = Spool(pathlib.Path(settings.fleet.spool_dir))
    meters = Meters(me)
    servers = Servers(
        now=clock.wall,
        features=features_of,
        sessions=Sessions(store, me),
        max_age=settings.global_.connection_max_age,
        observe=meters.request_seen,
        count_retry=meters.retry_seen,
    )
    heart = Heart(store=store, me=me, session=session, ttl=settings.fleet.manager_claim_ttl)
    listener = RowListener(store=store, spool=spool, hint=hints)
    reporter = Reporter(spool=spool, listener=listener, submit=lanes.submit, may_speak=heart.may_speak)
    reports = Reports(reporter=reporter, book=book, server_of=servers.of, info_of=servers.info_of)
    planner = Planner(
        store=store,
        book=book,
        intents=Intents(store_id=book.store_id),
        hint=hints,
        calendar_ahead=(lambda: timedelta(0)) if store.shared else clock.drift,
        wake_in=lambda seconds: driver.wake_in("plan", seconds),
    )
    watch = ClockWatch(store=store, clock=clock, freeze=planner.freeze)
    desk = Desk(
        store=store,
        book=book,
        me=me,
        channels=channels,
        spool=spool,
        reports=reports,
        submit=lanes.submit,
        hint=hints,
        runner_facts=lambda runner, beside: facts_of_runner(runner, beside, me),
        now=clock.wall,
        cache_store=CacheStores(configurator.plugins).of,
        fetch_secret=configurator.plugins.secret,
        holds_logs=store.shared and spool.directory == pathlib.Path(settings.fleet.state_dir) / "spool",
    )
    executor = Executor(desk=desk)
    shared: dict[str, Any] = {"store": store, "book": book, "me": me, "submit": lanes.submit, "hint": hints}
    acknowledger = Acknowledger(**shared, server_of=servers.of, info_of=servers.info_of, may_speak=heart.may_speak)
    disks = Disks(
        paths=(settings.fleet.state_dir, settings.fleet.spool_dir, *database_directory(settings)),
        reserve_bytes=settings.fleet.reserve_free_bytes,
    )
    upkeep = Upkeep(store=store, spool=spool, settings=settings.fleet)
    rotator = Rotator(**shared, server_of=servers.of, wall=clock.wall, save=saver.save_token)
    intake = Intake(
        **shared,
        acknowledger=acknowledger,
        server_of=servers.of,
        info_of=servers.info_of,
        cancel=stop_asking,
        may_speak=heart.may_speak,
        concurrent=settings.global_.concurrent,
        check_interval_s=settings.global_.check_interval,
        may_take=disks.problem,
        watcher=meters,
        session_of=servers.session_of,
        wake_in=lambda seconds: driver.wake_in("intake", seconds),
    )
    manager = Manager(
        settings=settings,
        clock=clock,
        store=store,
        me=me,
        session=session,
        locks=locks,
        book=book,
        configurator=configurator,
        servers=servers,
        meters=meters,
        lanes=lanes,
        driver=driver,
        hints=hints,
        channels=channels,
        spool=spool,
        reporter=reporter,
        listener=listener,
        planner=planner,
        executor=executor,
        intake=intake,
        heart=heart,
        disks=disks,
        upkeep=upkeep,
        saver=saver,
        stop_asking=stop_asking,
    )
    heart.lost, heart.look = manager.claims_lost, watch.look
    manager.claim()
    creator, observer = Creator(**shared), Observer(**shared)
    reaper = Reaper(**shared, channels=channels)
    readiness, keeper = Readiness(**shared, channels=channels), Keeper(**shared, channels=channels)
    tidier = Tidier(**shared, channels=channels, watcher=meters)
    third_of_ttl = max(1.0, settings.fleet.manager_claim_ttl / timedelta(seconds=3))
    for name, period_s, activate in (
        ("claim", third_of_ttl, manager.claim),
        ("plan", 2.0, watch.before(planner.activate)),
        ("provision", 5.0, creator.activate),
        ("observe", 1.0, observer.activate),
        ("ready", 1.0, readiness.activate),
        ("keep", 2.0, watch.before(keeper.activate)),
        ("intake", 2.0, intake.activate),
        ("acknowledge", 5.0, acknowledger.activate),
        ("execute", 2.0, watch.before(executor.activate)),
        ("reap", 2.0, reaper.activate),
        ("tidy", 5.0, tidier.activate),
        ("rotate", 30.0, rotator.activate),
        ("mark", 5.0, upkeep.mark),
        ("prune", 600.0, upkeep.prune),
        ("progress", 3.0, lambda: listener.trace_sent(reporter.progress())),
    ):
        driver.add(Controller(name=name, period_s=period_s, activate=activate))
    return manager
