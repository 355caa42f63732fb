"""The settings in force, for people: as TOML or JSON, with every secret masked.

Rule: what is printed can be read aloud. Values of free tables are masked by the name of their key, because nobody
knows what a plugin keeps there; variables for jobs are masked as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import tomlkit

from fleet.settings.manager import without_password
from fleet.settings.section import MASK
from fleet.settings.settings import Settings

SECRET_KEY = re.compile(
    r"pass(word|phrase|wd)|secret|token|credential|private|api_?key|access_?key|account_?key|^key$", re.IGNORECASE
)
FREE_TABLES = frozenset({"plugin_config", "placements"})


def effective(settings: Settings) -> dict[str, Any]:
    """Everything in force as a JSON value, secrets masked."""
    fleet = settings.fleet.model_dump(mode="json", by_alias=True, exclude={"secret_key", "secret_key_named"})
    fleet["database"] = without_password(settings.fleet.database.get_secret_value())
    return {
        "file": settings.path,
        **settings.global_.model_dump(mode="json", by_alias=True),
        "fleet": fleet,
        "runners": [
            {
                **runner.model_dump(mode="json", by_alias=True),
                "environment": [f"{each.partition('=')[0]}={MASK}" for each in runner.environment],
            }
            for runner in settings.runners
        ],
        "pools": [
            {key: masked(value) if key in FREE_TABLES else value for key, value in dumped.items()}
            for dumped in (pool.model_dump(mode="json", by_alias=True) for pool in settings.pools)
        ],
        "stopped": [
            {"index": each.index, "key": each.key, "name": each.name, "pool": each.pool, "reason": each.reason}
            for each in settings.stopped
        ],
    }


def masked(value: Any) -> Any:
    """A free value with what its keys call secret replaced."""
    if isinstance(value, Mapping):
        return {
            key: MASK if SECRET_KEY.search(key) and not isinstance(each, bool) and each else masked(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [masked(each) for each in value]
    return without_password(value) if isinstance(value, str) and "://" in value else value


def as_json(settings: Settings) -> str:
    """What is in force, as JSON."""
    return json.dumps(effective(settings), indent=2, ensure_ascii=False) + "\n"


def as_toml(settings: Settings) -> str:
    """What is in force, as TOML; keys without a value are left out, since TOML has no word for it."""
    return tomlkit.dumps(_without_none(effective(settings)))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_none(each) for each in value]
    return value
