"""From a configuration file to a manager that runs: locks, secret key, store, session; with patience for a database
that is not there yet, and without any for another manager with our identity.

Our id is what our claims rest on. A session under it that is not our own last one (which died with its process: we
hold the lock of its state directory) may be a twin that lives, such as a copy of this host. So it is watched: one that
renews its claims lives, and we do not start; one that lets them run out is dead.
"""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa
import structlog

from fleet.gitlab.identity import system_id
from fleet.runtime.app import Manager, open_manager, open_store
from fleet.runtime.clock import Clock
from fleet.runtime.locks import Locks
from fleet.runtime.providers import Plugins
from fleet.runtime.saving import Saver
from fleet.sdk import FleetError
from fleet.settings.environment import Env
from fleet.settings.settings import Settings
from fleet.store import managers
from fleet.store.database import Store
from fleet.store.engine import StoreUnavailable

log = structlog.get_logger(__name__)
LONGEST_S = 30.0
LOOK_S = 0.2
Stop = Callable[[], bool]


class IdInUse(FleetError):
    """Another manager that lives has our identity."""

    slug = "id_in_use"


class CannotStart(FleetError):
    """A directory that the manager needs cannot be made."""

    slug = "cannot_start"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """Our session: its name, and where the last one's name is kept."""

    path: pathlib.Path
    name: str

    def last(self) -> str | None:
        try:
            return self.path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None

    def keep(self) -> None:
        """Without it the next start takes a little longer, no more."""
        with contextlib.suppress(OSError):
            self.path.write_text(f"{self.name}\n", encoding="ascii")


def make_manager(settings: Settings, env: Env, *, should_stop: Stop = lambda: False) -> Manager | None:
    """Everything up to the point where the manager may act; None when it was told to stop before that.

    Raises:
        FleetError: what stands in the way, and what to do about it.
    """
    state = pathlib.Path(settings.fleet.state_dir)
    with contextlib.ExitStack() as undo:
        locks = Locks()
        undo.callback(locks.release)
        locks.take(state / "manager.lock", f"the state directory {state}")
        url = sa.make_url(settings.fleet.database.get_secret_value())
        if url.get_backend_name() == "sqlite":
            locks.take(pathlib.Path(f"{url.database}.lock"), f"the database {url.database}")
        _make_directory(pathlib.Path(settings.fleet.spool_dir), "spool_dir")
        clock = Clock()
        store = open_store(settings, clock)
        undo.callback(store.close)
        session = _Session(path=state / "session", name=secrets.token_hex(8))

        def attempt() -> Manager | None:
            if store.open():
                log.info("database_upgraded")
            clock.not_before(store.read(managers.newest_instant))
            if not _is_ours(store, settings, session, should_stop):
                return None
            session.keep()
            saver = Saver(path=settings.path, env=env)
            return open_manager(
                settings,
                store=store,
                clock=clock,
                locks=locks,
                plugins=Plugins(),
                saver=saver,
                session=session.name,
            )

        manager = _patiently(attempt, should_stop)
        if manager is not None:
            undo.pop_all()
        return manager


def _make_directory(path: pathlib.Path, key: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise CannotStart(
            f"the directory {path} cannot be made: {exc.strerror}; let fleetctl's user make it, "
            f"or name another one in [fleet] {key}"
        ) from exc


def _patiently(attempt: Callable[[], Manager | None], should_stop: Stop) -> Manager | None:
    """Try until the database is there."""
    wait_s = 1.0
    while not should_stop():
        try:
            return attempt()
        except StoreUnavailable as exc:
            log.error("database_unavailable", error=str(exc), again_in_s=wait_s)
            for _ in _looks(wait_s, should_stop):
                pass
            wait_s = min(wait_s * 2, LONGEST_S)
    return None


def _looks(seconds: float, should_stop: Stop) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not should_stop():
        yield
        time.sleep(LOOK_S)


def _is_ours(store: Store, settings: Settings, ours: _Session, should_stop: Stop) -> bool:
    """Whether our id is free; False when we are to stop. Waits at most until a dead session's claims have run out.

    Raises:
        IdInUse: its holder lives.
    """
    me = system_id(pathlib.Path(settings.path).parent)
    first = None
    while store.shared and not should_stop():  # nobody shares an SQLite file: its lock is ours
        held = store.read(lambda tx: managers.session_of(tx, me))
        if held is None or held[0] == ours.last():
            return True
        if first is None:
            first = held
            log.warning("id_watched", manager=me, until=held[1].isoformat(), reason="another session holds our id")
        elif held != first:
            raise IdInUse(
                f"another manager that lives has our id {me}: give each its own, such as r_ and 12 letters or "
                f"digits in the file .runner_system_id beside its configuration ({pathlib.Path(settings.path).parent})"
            )
        time.sleep(LOOK_S)
    return not should_stop()
