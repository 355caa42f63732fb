"""One machine of the place `local`, made and removed around a test."""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import signal
import time
from collections.abc import Callable
from typing import Any, Self

from fleet.machine.keys import make_key_pair
from fleet.machine.target import SshTarget, target_of
from fleet.places.local import fleet_provider
from fleet.places.local.processes import process
from fleet.sdk import TAG_STORE, CreateRequest, HostKey, Machine, MachineState, ProviderSetting


def until(what: Callable[[], Any], within_s: float = 20.0) -> Any:
    """What `what` returns as soon as it is true."""
    by = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < by, "it did not become true in time"
        time.sleep(0.005)
    return found


def process_is_gone(pid: int) -> bool:
    found = process(pid)
    return found is None or found.is_zombie


class LocalMachine:
    def __init__(self, state_dir: pathlib.Path, **asked: Any) -> None:
        self.provider = fleet_provider(
            "local",
            ProviderSetting(
                pool="p", plugin_config={}, placements=({},), state_dir=str(state_dir), store_id="store-of-test"
            ),
        )
        assert self.provider is not None
        self.client, self.host_key = make_key_pair(), make_key_pair()
        self.request = CreateRequest(
            token=secrets.token_hex(8),
            count=1,
            tags={TAG_STORE: "store-of-test"},
            placement={},
            client_public_key=self.client.public,
            host_key=HostKey(private=self.host_key.private, public=self.host_key.public),
            **asked,
        )

    def __enter__(self) -> Self:
        self.machine_id = self.provider.create(self.request).machine_ids[0]
        self.folder = pathlib.Path(self.provider.info().account.partition(":")[2]) / "machines" / self.machine_id
        self.home = self.folder / "home"
        self.machine = until(lambda: self.seen(MachineState.RUNNING))
        pool = SshTarget(host="", user="", private_key=self.client.private, host_keys=(self.host_key.public,))
        self.target = target_of(self.machine, pool)
        return self

    def seen(self, *states: MachineState) -> Machine | None:
        """The machine as it is listed, when it is in one of these states."""
        found = [each for each in self.provider.list() if each.machine_id == self.machine_id]
        return next((each for each in found if not states or each.state in states), None)

    @property
    def pid(self) -> int:
        return int(json.loads((self.folder / "run.json").read_text())["pid"])

    def kill(self) -> None:
        """kill -9 of the machine's own process: what it started lives on."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: process_is_gone(self.pid))

    def __exit__(self, *_: object) -> None:
        until(self._gone)

    def _gone(self) -> bool:
        self.provider.delete([self.machine_id])
        return self.seen() is None
