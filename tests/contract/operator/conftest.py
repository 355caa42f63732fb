from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from fleet.cli.main import run
from fleet.demo.gitlab import PretendGitLab
from tests.contract.operator.fleet_world import World, running, write_config

CLEARED = (
    "CONFIG_FILE", "CI_SERVER_URL", "CI_SERVER_TOKEN", "REGISTRATION_TOKEN", "RUNNER_NAME", "RUNNER_EXECUTOR",
    "FLEET_DATABASE", "FLEET_STATE_DIR", "FLEET_SECRET_KEY", "LOG_LEVEL", "LOG_FORMAT", "LISTEN_ADDRESS",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a call of `fleetctl` brought."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Fleetctl = Callable[..., Said]


@pytest.fixture
def fleetctl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[Fleetctl]:
    """Calls the command line as its entry point does, in an environment that says nothing."""
    for name in CLEARED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))

    def call(*arguments: object, **environment: str) -> Said:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = run([str(each) for each in arguments])
        said = capsys.readouterr()
        return Said(code=int(code), out=said.out, err=said.err)

    yield call
    # the log goes to a stream that ends with the test
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


@pytest.fixture
def gitlab() -> Iterator[PretendGitLab]:
    """A pretend GitLab that must have nothing to complain about at the end."""
    with PretendGitLab() as server:
        yield server
        assert server.violations() == []


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the configuration file is, or is to be."""
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory / "config.toml"


@pytest.fixture
def world(config: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[World]:
    """A manager whose servers listen; its store is SQLite in the test's directory."""
    write_config(config, tmp_path / "state")
    with running(config) as made:
        yield made
