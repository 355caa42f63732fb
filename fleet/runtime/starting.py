"""From a configuration file to a manager that runs: locks, secret key, store, session; with patience for a database
that is not there yet.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import sqlalchemy as sa
import structlog

from fleet.runtime.app import Manager, open_manager, open_store
from fleet.runtime.clock import Clock
from fleet.runtime.locks import Locks
from fleet.runtime.providers import Plugins
from fleet.runtime.saving import Saver
from fleet.settings.environment import Env
from fleet.settings.settings import Settings
from fleet.store import managers
from fleet.store.database import Store
from fleet.store.engine import StoreUnavailable

log = structlog.get_logger(__name__)
LONGEST_S = 30.0


def make_manager(settings: Settings, env: Env, *, should_stop: Callable[[], bool] = lambda: False) -> Manager | None:
    """Everything up to the point where the manager may act; None when it was told to stop before that.

    Raises:
        FleetError: what stands in the way, and what to do about it.
    """
    locks = Locks()
    state = pathlib.Path(settings.fleet.state_dir)
    locks.take(state / "manager.lock", f"the state directory {state}")
    url = sa.make_url(settings.fleet.database.get_secret_value())
    if url.get_backend_name() == "sqlite":
        locks.take(pathlib.Path(f"{url.database}.lock"), f"the database {url.database}")
    clock = Clock()
    store = open_store(settings, clock)
    if not _open(store, should_stop):
        locks.release()
        return None
    clock.not_before(store.read(managers.newest_instant))
    return open_manager(
        settings, store=store, clock=clock, locks=locks, plugins=Plugins(), saver=Saver(path=settings.path, env=env)
    )


def _open(store: Store, should_stop: Callable[[], bool]) -> bool:
    wait_s = 1.0
    while not should_stop():
        try:
            if store.open():
                log.info("database_upgraded")
        except StoreUnavailable as exc:
            log.error("database_unavailable", error=str(exc), again_in_s=wait_s)
            until = time.monotonic() + wait_s
            while time.monotonic() < until and not should_stop():
                time.sleep(0.1)
            wait_s = min(wait_s * 2, LONGEST_S)
        else:
            return True
    return False
