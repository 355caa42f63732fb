"""Managers whose jobs run in containers of the tests' own engine."""

from __future__ import annotations

from typing import Any

from tests.docker.engine import Engine

DOCKER = """
  [runners.docker]
  host = "{host}"
  pull_policy = {pull}
  volumes = {volumes}
  {keys}
"""


def docker_keys(
    engine: Engine, keys: str = "", pull: str = '"if-not-present"', tables: str = "", volumes: str = '["/cache"]'
) -> str:
    """`[runners.docker]` for an entry of the file; `keys` are further lines of it, `tables` what comes after them."""
    return DOCKER.format(host=engine.host, pull=pull, keys=keys, volumes=volumes) + tables


def manager_of(make_manager: Any, engine: Engine, keys: str = "", **more: Any) -> Any:
    """A manager with executor docker-autoscaler on local machines."""
    tables = {name: more.pop(name) for name in ("pull", "tables", "volumes") if name in more}
    return make_manager(executor="docker-autoscaler", runner_keys=docker_keys(engine, keys, **tables), **more)
