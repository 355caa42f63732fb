"""`fleetctl up`: runs the manager in the foreground until a signal ends it."""

from __future__ import annotations

import pathlib
import sys

import structlog

from fleet.runtime.logs import configure
from fleet.runtime.reloading import Reloader
from fleet.runtime.signals import Life
from fleet.runtime.starting import make_manager
from fleet.sdk import FleetError
from fleet.settings.environment import Overrides, current
from fleet.settings.loading import load

log = structlog.get_logger(__name__)
CONFIG_INVALID = 3


def up(config_path: pathlib.Path, overrides: Overrides) -> int:
    """Run the manager; returns the exit code."""
    env = current()
    found = load(config_path, env, overrides=overrides)
    for line in found.lines():
        print(line, file=sys.stderr)
    settings = found.settings
    if settings is None:
        print(f"fleetctl: {found.path} cannot be used; nothing was started", file=sys.stderr)
        return CONFIG_INVALID
    configure(settings.global_.log_level, settings.global_.log_format)
    try:
        manager = make_manager(settings)
    except FleetError as exc:
        log.error("manager_not_started", error=str(exc))
        return 1
    if manager is None:
        return 0
    life = Life(manager, Reloader(manager, env, overrides))
    life.install()
    life.run()
    return 0
