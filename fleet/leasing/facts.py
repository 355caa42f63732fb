"""What of the agent's hello is kept in the instance's row, for choosing a shell, paths and features later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KEPT = (
    "version",
    "python",
    "uid",
    "user",
    "home",
    "root",
    "boot_id",
    "hostname",
    "arch",
    "git",
    "git_lfs",
    "shells",
    "docker",
)


def facts_of(hello: Mapping[str, Any]) -> str:
    """The kept facts as JSON."""
    return json.dumps({name: hello.get(name) for name in KEPT})
