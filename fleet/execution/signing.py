"""Puts signed addresses of cached archives into job files, and answers the machines that ask for fresh ones.

Rule: the machine gets addresses and never the store's keys; each is for one name that `caches` made from the job's own
description. They hold until half an hour after the job's deadline. Where the credentials that sign end sooner the job
file says `ask`, and the machine asks just before use. Whatever goes wrong here is a line in the job's log.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from fleet.execution.caches import CacheKey, CachePlan
from fleet.sdk import CacheMethod, CacheStore, FleetError, SignedUrl

log = structlog.get_logger(__name__)
BEYOND_DEADLINE_S = 1800.0
ASKED_VALID_S = 1800.0  # an answer is for a transfer that begins now
CLOCK_S = 5.0
Signed = dict[str, Any]
# what of a key is signed: in the job file, by which method, for which name
WISHES: Mapping[str, tuple[CacheMethod, Callable[[CacheKey], str]]] = {
    "get": (CacheMethod.GET, lambda key: key.object_name),
    "other": (CacheMethod.GET, lambda key: key.other_name),
    "put": (CacheMethod.PUT, lambda key: key.object_name),
}
WANTED = {"restore_cache": ("get", "other"), "archive_cache": ("put",)}


class NoCacheStore(FleetError):
    """The runner has no remote store for caches, or it cannot be used."""

    slug = "no_cache_store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """The store of a job's runner at one moment."""

    store: CacheStore
    now: datetime

    def signed(self, wish: str, key: CacheKey, valid_s: float) -> SignedUrl:
        """The address for one wish; raises FleetError."""
        method, name_of = WISHES[wish]
        return self.store.sign(method, name_of(key), now=self.now, valid_s=valid_s)


def caches_of(job_file: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The transfers of caches in a job file."""
    transfers = (stage.get("transfer") for stage in job_file["stages"])
    return [transfer for transfer in transfers if transfer is not None and transfer["do"] in WANTED]


def with_urls(
    job_file: dict[str, Any],
    plan: CachePlan,
    open_store: Callable[[], CacheStore],
    *,
    now: datetime,
    remaining_s: float,
) -> dict[str, Any]:
    """The job file with an address, an `ask` or a line for the log at each key of each cache."""
    if not caches_of(job_file):
        return job_file
    job_file = job_file | {"stages": copy.deepcopy(job_file["stages"])}
    transfers = caches_of(job_file)
    try:
        signing = Signing(store=open_store(), now=now)
        for transfer in transfers:
            _fill(transfer, plan, signing, remaining_s + BEYOND_DEADLINE_S)
    except NoCacheStore as exc:
        _without(transfers, str(exc))
    except FleetError as exc:
        log.warning("cache_not_signed", job_id=job_file["job_id"], error=str(exc))
        _without(transfers, f"there is no remote cache for this job: {exc}")
    return job_file


def _without(transfers: list[dict[str, Any]], note: str) -> None:
    for transfer in transfers:
        transfer["notes"] = [note] if note else []
        for key in (key for item in transfer["items"] for key in item["keys"]):
            key |= {"get": None, "other": None, "put": None, "ask": None}


def _fill(transfer: dict[str, Any], plan: CachePlan, signing: Signing, valid_s: float) -> None:
    wanted_until = signing.now + timedelta(seconds=valid_s - CLOCK_S)
    for key in (key for item in transfer["items"] for key in item["keys"]):
        planned = plan.items[key["cache"]].keys[key["key"]]
        for wish in WANTED[transfer["do"]]:
            signed = signing.signed(wish, planned, valid_s)
            if signed.expires_at < wanted_until:
                key |= {"get": None, "other": None, "put": None}
                key["ask"] = {
                    "do": transfer["do"], "cache": key["cache"], "key": key["key"], "digest": planned.digest,
                }  # fmt: skip
                break
            key[wish] = shown(signed)


def answer(what: Any, plan: CachePlan, open_store: Callable[[], CacheStore], *, now: datetime) -> Signed:
    """What a machine is told that asks: addresses for a key of the job's own, named by its place in the plan alone."""
    reply: Signed = {"for": what}
    key = _asked(what, plan)
    if key is None:
        return reply | {"error": "the job has no such cache"}
    if what.get("digest") != key.digest:  # it hung on a secret, or the runner's settings have changed
        return reply | {"error": "its name in the store is not the same as when the job began"}
    try:
        signing = Signing(store=open_store(), now=now)
        urls = {wish: shown(signing.signed(wish, key, ASKED_VALID_S)) for wish in WANTED[what["do"]]}
    except FleetError as exc:
        log.warning("cache_not_signed", error=str(exc))
        return reply | {"error": str(exc)}
    return reply | urls


def _asked(what: Any, plan: CachePlan) -> CacheKey | None:
    """The key in question, if the job may do with it what it asks for."""
    if not isinstance(what, dict) or what.get("do") not in WANTED:
        return None
    cache, number = what.get("cache"), what.get("key")
    if type(cache) is not int or type(number) is not int or not 0 <= cache < len(plan.items):
        return None
    item = plan.items[cache]
    if what["do"] == "restore_cache":
        keys = item.keys if item.restores else ()
    else:
        keys = item.keys[:1] if item.saves_on else ()
    return keys[number] if 0 <= number < len(keys) else None


def shown(signed: SignedUrl) -> Signed:
    """An address as the job file has it."""
    return {"url": signed.url, "headers": dict(signed.headers)}
