"""What can be asked about a fleet, as JSON values: for the API of a running manager, and for `fleetctl` without one.

Rule: a view reads in one transaction and changes nothing. With a manager it also says what only that manager knows: its
state, the plans it made, why a pool has no provider. Without one plans are made here, from the same rows by the same
function, and applied by nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from fleet import __version__
from fleet.model.ids import PoolName
from fleet.model.lifecycle import OPEN_JOB, InstanceState, JobState
from fleet.model.plan import Plan
from fleet.model.policy import PoolLimits
from fleet.planning.planner import plan
from fleet.runtime import lists, rows
from fleet.runtime.contract import MOST
from fleet.runtime.explain import explain
from fleet.runtime.lists import BadQuery, Query
from fleet.runtime.orders import NotFound
from fleet.runtime.status import readiness
from fleet.settings.pools import PoolSettings
from fleet.store import listings, pools, stories
from fleet.store.database import Store, Tx
from fleet.store.engine import StoreError
from fleet.store.snapshots import pool_snapshot

if TYPE_CHECKING:
    from fleet.runtime.app import Manager

Answer = dict[str, Any]


def plain(value: Any) -> Any:
    """A value of ours as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return listings.instant(value)
    return value.value if isinstance(value, Enum) else value


class Views:
    """Answers questions about one store."""

    def __init__(self, store: Store, manager: Manager | None = None) -> None:
        self._store = store
        self._manager = manager
        # what is asked -> who answers; the API's paths and the commands have these names
        self.questions: Mapping[str, Callable[[Tx, Query], Answer]] = {
            "status": self._status,
            "pools": self._pools,
            "instances": self._instances,
            "jobs": self._jobs,
            "runners": self._runners,
            "managers": self._managers,
            "placements": self._placements,
            "plan": self._plan,
            "journal": lists.journal_page,
        }

    def get(self, what: str, query: Query | None = None) -> Answer:
        """Answer a question.

        Raises:
            BadQuery: the page that was asked for has no meaning.
            NotFound: what was named is not there.
        """
        answer = self.questions.get(what)
        if answer is None:
            raise NotFound(f"nobody knows about {what}: ask for {', '.join(self.questions)}")
        given = query or Query()
        try:
            return self._store.read(lambda tx: answer(tx, given))
        except StoreError as exc:
            if type(exc) is StoreError and given.after:
                raise BadQuery(str(exc)) from exc
            raise

    def explain(self, name: str) -> Answer:
        """Everything about one thing.

        Raises:
            NotFound: nothing has this name.
        """
        return self._store.read(lambda tx: explain(tx, name, self._plan_of))

    def _status(self, tx: Tx, _query: Query) -> Answer:
        states: Counter[str] = Counter()
        for runner in listings.list_runners(tx):
            states.update(runner.jobs)
        on, why_not = rows.sweeping(tx)
        return {
            "version": __version__,
            "at": listings.instant(tx.now),
            "manager": self._of_manager(),
            "managers": plain(listings.list_managers(tx)),
            "pools": self._pools(tx, Query(limit=MOST))["items"],
            "jobs": dict(states),
            "cool_downs": plain([each for each in listings.list_cool_downs(tx) if each.running]),
            "sweeping": {"on": on, "reason": why_not},
        }

    def _of_manager(self) -> Answer | None:
        manager = self._manager
        if manager is None:
            return None
        reasons = readiness(manager)
        return {
            "id": manager.me,
            "state": manager.state,
            "session": manager.session,
            "configuration": manager.settings.path,
            "file_problem": manager.file_problem,
            "ready": not reasons,
            "not_ready": plain(reasons),
            "owned": sorted(manager.book.owned),
            "channels": manager.channels.count(),
            "stopped_runners": [{"name": each.name, "reason": each.reason} for each in manager.settings.stopped],
        }

    def _pools(self, tx: Tx, query: Query) -> Answer:
        page = listings.list_pools(tx, limit=query.bound, after=query.after)
        problems = {} if self._manager is None else {n: p.problem for n, p in self._manager.book.pools.items()}
        plans = {} if self._manager is None else self._manager.planner.plans
        items = []
        for each in page.items:
            made = plans.get(PoolName(each.pool))
            items.append(
                {
                    **plain(each),
                    "problem": problems.get(PoolName(each.pool)),
                    "idle_target": None if made is None else made.idle_target,
                    "desired_instances": None if made is None else made.desired_instances,
                }
            )
        return {"items": items, "next": page.next}

    def _instances(self, tx: Tx, query: Query) -> Answer:
        state = query.one_of("state")
        page = listings.list_instances(
            tx,
            limit=query.bound,
            after=query.after,
            pool=query.one_of("pool"),
            states=_states(state, InstanceState),
            gone=state == "all",
        )
        return {"items": plain(page.items), "next": page.next}

    def _jobs(self, tx: Tx, query: Query) -> Answer:
        state = query.one_of("state")
        page = stories.list_jobs(
            tx,
            limit=query.bound,
            after=query.after,
            pool=query.one_of("pool"),
            runner_key=query.one_of("runner"),
            states=sorted(OPEN_JOB) if state is None else _states(state, JobState),
        )
        return {"items": plain(page.items), "next": page.next}

    def _runners(self, tx: Tx, _query: Query) -> Answer:
        items = plain(listings.list_runners(tx))
        asks = {} if self._manager is None else {ask.runner: ask for ask in self._manager.intake.states()}
        for item in items:
            ask = asks.get(item["runner_key"])
            item["polls"] = None if ask is None else ask.polls
            item["unhealthy_until"] = None if ask is None else plain(ask.unhealthy_until)
        return {"items": items, "next": None}

    def _managers(self, tx: Tx, _query: Query) -> Answer:
        return {"items": plain(listings.list_managers(tx)), "next": None}

    def _placements(self, tx: Tx, query: Query) -> Answer:
        cooled = {each.scope: each for each in listings.list_cool_downs(tx) if each.running}
        machines = rows.machines_by_placement(tx)
        items = []
        for pool, limits in self._limits(tx).items():
            if query.one_of("pool") not in {None, pool}:
                continue
            for placement in limits.placements:
                stops = [cooled[scope] for scope in placement.scopes if scope in cooled]
                items.append(
                    {
                        "pool": pool,
                        "placement": placement.name,
                        "max_instances": placement.max_instances,
                        "instances": machines.get((pool, placement.name), 0),
                        "scopes": list(placement.scopes),
                        "cooling_down": plain(stops),
                        "until": max((each.until for each in stops), default=None),
                    }
                )
        return {"items": items, "next": None}

    def _plan(self, tx: Tx, query: Query) -> Answer:
        wanted = query.one_of("pool")
        names = [name for name in self._limits(tx) if wanted in {None, name}]
        if wanted is not None and not names:
            raise NotFound(f"there is no pool {wanted}: fleetctl pools lists them")
        made = [(name, self._plan_of(tx, name)) for name in names]
        planned_at = {} if self._manager is None else self._manager.planner.planned_at
        return {
            "applied": self._manager is not None,
            "items": [{**plain(each), "planned_at": plain(planned_at.get(name))} for name, each in made if each],
            "next": None,
        }

    def _plan_of(self, tx: Tx, pool: str) -> Plan | None:
        if self._manager is not None:
            return self._manager.planner.plans.get(PoolName(pool))
        limits = self._limits(tx).get(PoolName(pool))
        snapshot = None if limits is None else pool_snapshot(tx, limits, now=tx.now)
        return None if snapshot is None else plan(snapshot)

    def _limits(self, tx: Tx) -> Mapping[PoolName, PoolLimits]:
        if self._manager is not None:
            return {name: pool.limits for name, pool in self._manager.book.pools.items()}
        return {
            row.pool: PoolSettings.model_validate(row.settings).limits(
                settings_version=row.settings_version, retired=row.retired_at is not None
            )
            for row in pools.all_pools(tx)
        }


S = TypeVar("S", InstanceState, JobState)


def _states(text: str | None, kind: type[S]) -> list[S]:
    """The states that are asked for; none for all of them."""
    try:
        return [] if text in {None, "all"} else [kind(str(text))]
    except ValueError as exc:
        raise BadQuery(f"state={text} is none of: all, {', '.join(kind)}") from exc
