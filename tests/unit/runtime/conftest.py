"""A manager that acts on nothing: its parts are real, its controllers stand still."""

from __future__ import annotations

import pathlib

import pytest

from fleet.runtime.starting import make_manager
from fleet.settings.loading import load

CONFIG = """
concurrent = {concurrent}
[fleet]
state_dir = "{state}"
api_listen = "127.0.0.1:0"
reserve_free_bytes = 0
{fleet}
[[runners]]
name = "one"
url = "https://gitlab.example"
id = 7
token = "word-0"
executor = "instance"
[runners.autoscaler]
plugin = "local"
max_instances = 1
"""


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    path = tmp_path / "fleet.toml"
    write(path)
    return path


def write(path: pathlib.Path, *, concurrent: int = 1, fleet: str = "", more: str = "") -> None:
    path.write_text(CONFIG.format(state=path.parent / "state", concurrent=concurrent, fleet=fleet) + more)


@pytest.fixture
def manager(config):
    settings = load(config, {}).settings
    assert settings is not None
    made = make_manager(settings, {})
    assert made is not None
    yield made
    made.close("the test is over")
