from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from fleet.machine.ssh import SshConnection, connect
from fleet.machine.target import SshTarget
from tests.contract.machine.local_machine import LocalMachine
from tests.contract.machine.openssh import OpenSsh


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[LocalMachine]:
    with LocalMachine(tmp_path / "state") as made:
        yield made


@pytest.fixture
def connection(machine: LocalMachine) -> Iterator[SshConnection]:
    with connect(machine.target) as made:
        yield made


@pytest.fixture
def sshd(tmp_path: pathlib.Path) -> Iterator[OpenSsh]:
    with OpenSsh(tmp_path / "sshd") as made:
        yield made


@pytest.fixture
def sshd_target(sshd: OpenSsh) -> SshTarget:
    return sshd.target
