"""Brings committed intents before their provider, and writes down what became of them.

The token in the request makes a second try safe, so whatever is in doubt is simply asked again, until its instances
are given up. A request that failed leaves its instances in `deleting`: an answer of "no" is not proof that nothing was
made, and only a complete listing without the request's tag makes them `gone`. While the API of an account cools down,
nothing new is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from fleet.model.ids import ManagerId
from fleet.model.instance import OpenRequest
from fleet.model.lifecycle import InstanceState
from fleet.sdk import (
    Created,
    CreateRequest,
    HostKey,
    ProviderError,
    ProviderUnavailable,
    Scope,
    Throttled,
)
from fleet.store import instances, managers, pools, snapshots
from fleet.store.book import Book, Pool
from fleet.store.database import Store, Tx

log = structlog.get_logger(__name__)
AGAIN_S = 5.0
AGAIN_LONGEST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one activation saw and did."""

    open: int = 0
    handed_out: int = 0


@dataclass(slots=True, kw_only=True)
class Creator:
    """The controller that creates machines."""

    store: Store
    book: Book
    me: ManagerId
    submit: Callable[..., bool]
    hint: Callable[..., None]

    def activate(self) -> Asked:
        """Hand each open request of our pools to the lane of its provider account."""
        owned = [name for name in self.book.owned if name in self.book.pools]
        if not owned:
            return Asked()
        waiting, unwanted, cooling = self.store.read(
            lambda tx: (
                pools.open_requests(tx, owned),
                pools.unwanted_requests(tx, owned),
                {each.scope for each in snapshots.running_cool_downs(tx)},
            )
        )
        if unwanted:
            self.store.write(lambda tx: _give_up(tx, unwanted))
        handed = 0
        for request in waiting:
            pool = self.book.pools[request.pool]
            if pool.provider is None or pool.info is None or pool.api_key in cooling or request.request_id in unwanted:
                continue
            handed += self.submit(
                f"provider:{pool.info.account}",
                f"create:{request.request_id}",
                lambda request=request, pool=pool: self._create(request, pool),
                timeout_s=pool.info.call_timeout_s,
                width=4,
            )
        return Asked(open=len(waiting), handed_out=handed)

    def _create(self, request: OpenRequest, pool: Pool) -> None:
        assert pool.provider is not None
        epoch = self.book.owned.get(pool.name)
        if epoch is None:
            return
        try:
            created = pool.provider.create(_asked(request))
        except ProviderError as exc:
            log.warning("create_failed", pool=pool.name, placement=request.placement, slug=exc.slug, error=str(exc))
            self.store.write(lambda tx, exc=exc: self._refused(tx, request, pool, epoch, exc))  # type: ignore[misc]
        except Exception as exc:
            # a plugin's own bug: what it did is unknown, so it is asked again like an answer that got lost
            log.exception("provider_broke", pool=pool.name, call="create")
            told = ProviderUnavailable(f"plugin {pool.settings.plugin} broke: {type(exc).__name__}: {exc}")
            self.store.write(lambda tx: self._refused(tx, request, pool, epoch, told))
        else:
            self.store.write(lambda tx: self._made(tx, request, pool, epoch, created))
        self.hint("observe", "plan", "reap")

    def _made(self, tx: Tx, request: OpenRequest, pool: Pool, epoch: int, created: Created) -> None:
        if not managers.holds_pool(tx, pool.name, self.me, epoch):
            return
        name_machines(tx, request.request_id, created.machine_ids, "the provider named it")
        missing = instances.unnamed_of(tx, request.request_id)
        if created.shortfall is not None or missing:
            why = str(created.shortfall or "the provider made fewer machines than it was asked for")
            for instance_id in missing:
                instances.remove(tx, instance_id, stimulus="shortfall", reason=why)
            if isinstance(created.shortfall, ProviderError):
                self._cool(tx, pool, request.placement, created.shortfall)
        else:
            snapshots.forget_cool_downs(tx, (pool.api_key,))
        pools.close_request(tx, request.request_id, "filled", f"{len(created.machine_ids)} of {request.count} made")

    def _refused(self, tx: Tx, request: OpenRequest, pool: Pool, epoch: int, error: ProviderError) -> None:
        if not managers.holds_pool(tx, pool.name, self.me, epoch):
            return
        self._cool(tx, pool, request.placement, error)
        if isinstance(error, (ProviderUnavailable, Throttled)):
            wait = min(AGAIN_S * 2**request.attempts, AGAIN_LONGEST_S)
            due = tx.now + timedelta(seconds=max(wait, error.retry_after_s or 0))
            pools.retry_request(tx, request.request_id, due_at=due, error=str(error))
            return
        pools.close_request(tx, request.request_id, "failed", str(error))
        for instance_id in instances.unnamed_of(tx, request.request_id):
            instances.remove(tx, instance_id, stimulus=error.slug, reason=str(error))

    def _cool(self, tx: Tx, pool: Pool, placement: str, error: ProviderError) -> None:
        if error.scope is Scope.INSTANCE:
            return
        snapshots.cool(tx, pool.scope_key(placement, error.scope), str(error), error.retry_after_s)


def _give_up(tx: Tx, requests: Sequence[str]) -> None:
    """Stop asking; what an earlier call may have made is found by its tag and deleted."""
    for request_id in requests:
        pools.close_request(tx, request_id, "failed", "its instances were given up before the provider had answered")


def _asked(request: OpenRequest) -> CreateRequest:
    given = request.parameters
    key = given["host_key"]
    return CreateRequest(
        token=request.request_id,
        count=request.count,
        tags=given["tags"],
        placement=given["placement"],
        user=given["user"],
        client_public_key=given["client_public_key"],
        host_key=None if key is None else HostKey(private=key["private"], public=key["public"]),
        agent_timeout_s=given["agent_timeout_s"],
    )


def name_machines(tx: Tx, request_id: str, machine_ids: Sequence[str], reason: str) -> int:
    """Give the request's nameless instances the machines that were made for it; returns how many were new."""
    known = instances.machines_of(tx, request_id)
    fresh = [machine_id for machine_id in machine_ids if machine_id not in known]
    free = instances.unnamed_of(tx, request_id)
    for instance_id, machine_id in zip(free, fresh, strict=False):
        instances.move(
            tx,
            instance_id,
            InstanceState.CREATING,
            stimulus="created",
            reason=f"{reason}: {machine_id}",
            only_from=[InstanceState.REQUESTED],
            machine_id=machine_id,
            **instances.SAME_DEADLINE,
        )
    return min(len(free), len(fresh))
