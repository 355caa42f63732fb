"""The store, asked without a manager: what `asking` falls back to when none answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fleet.cli.database import revision_of
from fleet.cli.exits import Unreachable
from fleet.cli.printing import note
from fleet.runtime import orders
from fleet.runtime.app import open_store
from fleet.runtime.clock import Clock
from fleet.runtime.contract import MOST
from fleet.runtime.lists import Query
from fleet.runtime.views import Views
from fleet.settings.settings import Settings
from fleet.store.database import Store

Answer = dict[str, Any]


@contextlib.contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """The database as it is.

    Raises:
        Unreachable: it is not there, or its revision is another.
    """
    at, needed = revision_of(settings)
    if at != needed:
        raise Unreachable(f"the database is at revision {at or 'none'} and not {needed}: run fleetctl db upgrade first")
    # a key that is missing is told: one made now would open nothing
    named = settings.fleet.model_copy(update={"secret_key_named": True})
    store = open_store(replace(settings, fleet=named), Clock())
    try:
        store.open()
        yield store
    finally:
        store.close()


class Offline:
    """The store, without a manager."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._views = Views(store)

    def get(self, what: str, limit: str | None = None, after: str | None = None, **wanted: str | None) -> Answer:
        """One page of an answer."""
        given = {key: value for key, value in wanted.items() if value is not None}
        return self._views.get(what, Query(limit=int(limit or MOST), after=after or "", wanted=given))

    def explain(self, name: str) -> Answer:
        """Everything about one thing."""
        return self._views.explain(name)

    def order(self, order: str, name: str = "", **how: bool) -> Answer:
        """Change the rows; the manager acts on them when it runs again."""
        match order:
            case "drain":
                done = self._store.write(lambda tx: orders.drain(tx, name))
            case "undrain":
                done = self._store.write(lambda tx: orders.undrain(tx, name))
            case "remove":
                done = self._store.write(lambda tx: orders.remove(tx, name, force=how.get("force", False)))
            case "sweeping":
                return {"message": self._store.write(lambda tx: orders.sweep(tx, on=how["on"]))}
            case _:
                raise Unreachable("no manager runs: there is nobody to order that of")
        note("the next manager that runs acts on it")
        return {"instance_id": done.instance_id, "message": done.message}
