"""Keeps the store and the spool bounded (law 10), and remembers how far the store has come."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import structlog

from fleet.settings.manager import FleetSettings
from fleet.store import restore
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.retention import Pruned, prune
from fleet.store.spool import Spool
from fleet.store.worklist import open_keys

log = structlog.get_logger(__name__)
BATCHES = 20


def mark_path(state_dir: str) -> pathlib.Path:
    """Where the newest journal line is noted, outside of the database."""
    return pathlib.Path(state_dir) / "store.mark"


@dataclass(slots=True, kw_only=True)
class Upkeep:
    """The controllers of housekeeping.

    Attributes:
        settings: what `[fleet]` says now.
    """

    store: Store
    spool: Spool
    settings: FleetSettings

    def mark(self) -> restore.Mark:
        """Note how far the store has come: a database that is behind it at a start was restored."""
        mark = self.store.read(restore.newest_mark)
        try:
            restore.note(mark_path(self.settings.state_dir), mark)
        except StoreError as exc:
            log.warning("mark_not_noted", error=str(exc))
        return mark

    def prune(self) -> Pruned:
        """Forget what is older than its retention, and spool files that no open job needs."""
        done = Pruned()
        for _ in range(BATCHES):
            done = self.store.write(self._prune)
            if done.total == 0:
                break
        # files before rows: a job is in its row before it has a file, and it is open then
        files = set(self.spool.leftovers(set()))
        for key in sorted(files - self.store.read(open_keys)):
            log.info("spool_removed", job_key=key)
            self.spool.remove(key)
        return done

    def _prune(self, tx: Tx) -> Pruned:
        ours = self.settings
        return prune(
            tx,
            journal_before=tx.now - ours.journal_retention,
            finished_before=tx.now - ours.finished_retention,
            gone_before=tx.now - ours.gone_retention,
        )
