"""`fleetctl up`: runs the manager in the foreground until a signal ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import sys
from dataclasses import replace

import structlog

from fleet.cli.exits import Exit, exit_of
from fleet.runtime.driver import Controller
from fleet.runtime.logs import configure
from fleet.runtime.reloading import Reloader
from fleet.runtime.signals import Life, Wishes
from fleet.runtime.starting import make_manager
from fleet.runtime.web import Web
from fleet.sdk import FleetError
from fleet.settings.environment import Env, Overrides, current, overrides
from fleet.settings.loading import load

log = structlog.get_logger(__name__)
M_ARENA_MAX = -8  # malloc.h


def up(
    config: pathlib.Path | None,
    *,
    demo: bool = False,
    on_term: str | None = None,
    listen_address: str | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
    database: str | None = None,
    state_dir: str | None = None,
) -> int:
    """Run the manager; returns the exit code."""
    env = current()
    try:
        asked = overrides(
            env,
            log_level_flag=log_level,
            log_format_flag=log_format,
            listen_address_flag=listen_address,
            on_term_flag=on_term,
        )
    except ValueError as exc:
        print(f"fleetctl: {exc}", file=sys.stderr)
        return 2
    asked = replace(asked, database=database or asked.database, state_dir=state_dir or asked.state_dir)
    if demo and config is None:
        from fleet.cli.demonstration import demonstrate  # noqa: PLC0415  only the demo needs the pretend GitLab

        return demonstrate(asked, env)
    assert config is not None
    _keep_few_arenas()
    life = prepare(config, asked, env)
    if isinstance(life, int):
        return life
    life.install()
    life.run()
    # a thread that hangs in an SSH server or a database must not delay the end; everything of ours is closed
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(Exit.OK)


def _keep_few_arenas() -> None:
    """Let threads share two heaps: with one each, as glibc has it, 200 jobs hold 45 MB instead of 18."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call, and no such heaps
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def prepare(config: pathlib.Path, asked: Overrides, env: Env) -> Life | int:
    """A manager that is ready to run, or the exit code when there is none."""
    found = load(config, env, overrides=asked)
    for line in found.lines():
        print(line, file=sys.stderr)
    settings = found.settings
    if settings is None:
        print(f"fleetctl: {found.path} cannot be used; nothing was started", file=sys.stderr)
        return Exit.CONFIG
    configure(settings.global_.log_level, settings.global_.log_format)
    wishes = Wishes(on_term=lambda: settings.fleet.on_term)
    wishes.install()  # a service that waits for its database must hear them too
    try:
        manager = make_manager(settings, env, should_stop=lambda: wishes.how is not None)
    except FleetError as exc:
        log.error("manager_not_started", error=str(exc))
        return exit_of(exc)
    if manager is None:
        log.info("manager_stopped", reason="it was told to stop before it had started")
        return Exit.OK
    reloader = Reloader(manager, env, asked, in_force=found.content_hash)
    web = Web(manager, manager.meters, reloader)
    manager.driver.add(Controller(name="measure", period_s=5.0, activate=web.metrics.measure))
    try:
        web.start()
    except FleetError as exc:
        log.error("manager_not_started", error=str(exc))
        manager.close("it was not started")
        return exit_of(exc)
    return Life(manager, reloader, wishes, web)
