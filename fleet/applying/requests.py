"""Makes the exact parameters of a request before anything is committed: token, tags, keys (law 2)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.machine.keys import make_key_pair
from fleet.model.plan import Create
from fleet.sdk import TAG_POOL, TAG_REQUEST, TAG_STORE
from fleet.store.book import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One request to be: its token, how many machines, the parameters, and what their rows begin with."""

    request_id: str
    count: int
    parameters: dict[str, Any] = field(repr=False)
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intents:
    """Makes requests for one store."""

    store_id: str

    def of(self, pool: Pool, create: Create) -> Iterator[Intent]:
        """The requests that make `create.count` machines, each no larger than the provider takes at once."""
        info = pool.info
        batch = max(1, info.max_batch) if info else 1
        left = create.count
        while left > 0:
            count = min(batch, left)
            left -= count
            yield self._one(pool, create, count)

    def _one(self, pool: Pool, create: Create, count: int) -> Intent:
        request_id = secrets.token_hex(16)
        hands_over = pool.info is not None and pool.info.abilities.hands_over_host_key
        pair = make_key_pair() if hands_over else None
        agent_timeout = pool.settings.fleet.agent_timeout
        parameters = {
            "placement": dict(pool.placement_table(create.placement)),
            "tags": {TAG_STORE: self.store_id, TAG_POOL: pool.name, TAG_REQUEST: request_id},
            "user": pool.settings.connector_config.username,
            "client_public_key": pool.client_public_key,
            "host_key": None if pair is None else {"private": pair.private, "public": pair.public},
            "agent_timeout_s": agent_timeout.total_seconds(),
        }
        columns = {} if pair is None else {"host_keys": json.dumps([pair.public])}
        return Intent(request_id=request_id, count=count, parameters=parameters, columns=columns)
