from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.contract.machine.local_machine import LocalMachine


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[LocalMachine]:
    with LocalMachine(tmp_path / "state") as made:
        yield made
