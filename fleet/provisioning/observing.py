"""Asks each provider account for its machines, and hands what it said to `sightings`.

A complete listing is the only proof of two things: that a machine is gone, and that one exists although its request was
never answered.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import InstanceState
from fleet.planning.orphans import Suspect
from fleet.provisioning.sightings import Listing, note_listing
from fleet.sdk import Machine, ProviderError
from fleet.store import instances
from fleet.store.book import Book, Pool
from fleet.store.database import Store

log = structlog.get_logger(__name__)
S = InstanceState
EXPECTING = (S.REQUESTED, S.CREATING, S.DELETING, S.STOPPING, S.STARTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one activation saw and did."""

    accounts: int = 0
    listed: int = 0


@dataclass(slots=True)
class _Account:
    listed_at: float | None = None
    failing: bool = False
    suspects: Mapping[str, Suspect] = field(default_factory=dict)
    reported: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Observer:
    """The controller that lists machines."""

    store: Store
    book: Book
    me: ManagerId
    submit: Callable[..., bool]
    hint: Callable[..., None]
    _accounts: dict[str, _Account] = field(default_factory=dict)

    def activate(self) -> Observed:
        """List the accounts whose interval has passed; it is short while a change is expected.

        A machine that cannot be reached may be no more, and its job's end waits for that word.
        """
        groups: dict[str, list[Pool]] = defaultdict(list)
        for name in self.book.owned:
            pool = self.book.pools.get(name)  # type: ignore[call-overload]
            if pool is not None and pool.provider is not None and pool.info is not None:
                groups[pool.info.account].append(pool)
        owned = [pool.name for pools in groups.values() for pool in pools]
        expecting = self.store.read(lambda tx: instances.pools_expecting(tx, owned, EXPECTING))
        listed = 0
        for account, pools in groups.items():
            state = self._accounts.setdefault(account, _Account())
            interval = min(
                pool.settings.update_interval_when_expecting
                if pool.name in expecting
                else pool.settings.update_interval
                for pool in pools
            )
            if state.listed_at is None or time.monotonic() - state.listed_at >= interval.total_seconds():
                state.listed_at = time.monotonic()
                listed += self._hand_out(account, pools, state)
        return Observed(accounts=len(groups), listed=listed)

    def _hand_out(self, account: str, pools: list[Pool], state: _Account) -> bool:
        info = pools[0].info
        assert info is not None
        return self.submit(
            f"listing:{account}", "list", lambda: self._list(pools, state), timeout_s=info.call_timeout_s
        )

    def _list(self, pools: list[Pool], state: _Account) -> None:
        machines: dict[str, Machine] = {}
        began = self.store.read(lambda tx: tx.now)
        for pool in pools:
            found = self._machines_of(pool, state)
            if found is None:
                return  # a listing that is not complete proves nothing
            machines |= {machine.machine_id: machine for machine in found}
        state.failing = False
        held = [(pool, epoch) for pool in pools if (epoch := self.book.owned.get(pool.name)) is not None]
        seen = Listing(
            store_id=self.book.store_id,
            begun_at=began,
            machines=machines,
            pools=held,
            me=self.me,
            suspects=state.suspects,
            reported=state.reported,
        )
        changed = self.store.write(lambda tx: note_listing(tx, seen))
        state.suspects = seen.still_suspects
        if changed:
            self.hint("plan", "ready", "reap", "execute")

    def _machines_of(self, pool: Pool, state: _Account) -> list[Machine] | None:
        assert pool.provider is not None
        try:
            return list(pool.provider.list())
        except ProviderError as exc:
            slug, error = exc.slug, str(exc)
        except Exception as exc:
            slug, error = "provider_broke", f"plugin {pool.settings.plugin} broke: {type(exc).__name__}: {exc}"
            log.exception("provider_broke", pool=pool.name, call="list")
        if not state.failing:
            log.warning("listing_failed", pool=pool.name, slug=slug, error=error)
            state.failing = True
        return None
