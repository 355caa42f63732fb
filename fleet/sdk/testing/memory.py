"""A healthy cloud in memory: the contract of `fleet.sdk.provider`, kept to the letter, and nothing behind it.

Its machines are names. What takes time (coming up, appearing in the listing, ending) takes it by the clock that it is
given, so a test with a clock of its own never waits.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fleet.sdk.errors import BadParameters
from fleet.sdk.provider import Abilities, Created, CreateRequest, Machine, MachineState, ProviderInfo


@dataclass(slots=True, kw_only=True)
class _Made:
    machine: Machine
    made_at: float
    deleted_at: float | None = None


class MemoryCloud:
    """A provider whose machines exist in memory only.

    Args:
        account: as in `ProviderInfo`.
        now: seconds on a clock that never goes back.
        lag_s: a machine is not listed before it is so old.
        boot_s: a machine is `creating` before it is so old.
        delete_s: how long a machine is `deleting`.
        max_batch: as in `ProviderInfo`.
        abilities: as in `ProviderInfo`.
    """

    def __init__(
        self,
        account: str = "memory",
        *,
        now: Callable[[], float] = time.monotonic,
        lag_s: float = 0.0,
        boot_s: float = 0.0,
        delete_s: float = 0.0,
        max_batch: int = 8,
        abilities: Abilities | None = None,
    ) -> None:
        self._info = ProviderInfo(
            name="memory",
            account=account,
            visibility_lag_s=lag_s,
            call_timeout_s=5.0,
            max_batch=max_batch,
            abilities=abilities or Abilities(),
        )
        self._now = now
        self._lag_s = lag_s
        self._boot_s = boot_s
        self._delete_s = delete_s
        self._lock = threading.Lock()
        self._requests: dict[str, tuple[CreateRequest, tuple[str, ...]]] = {}
        self._machines: dict[str, _Made] = {}
        self.creates = 0
        self.most = 0

    def info(self) -> ProviderInfo:
        return self._info

    def create(self, request: CreateRequest) -> Created:
        """See the contract.

        Raises:
            BadParameters: the token was used with other parameters.
        """
        with self._lock:
            self.creates += 1
            known = self._requests.get(request.token)
            if known is None:
                ids = tuple(f"mem-{request.token[:12]}-{number}" for number in range(request.count))
                self._requests[request.token] = (request, ids)
                for machine_id in ids:
                    self._machines[machine_id] = _Made(machine=_machine(machine_id, request), made_at=self._now())
                self.most = max(self.most, self._alive())
                return Created(machine_ids=ids)
            if known[0] != request:
                raise BadParameters(f"create token {request.token} was used with other parameters")
            return Created(machine_ids=known[1])

    def list(self) -> Iterator[Machine]:
        """See the contract."""
        with self._lock:
            return iter([seen for made in self._machines.values() if (seen := self._seen(made)) is not None])

    def delete(self, machine_ids: Sequence[str]) -> None:
        """See the contract."""
        with self._lock:
            for machine_id in machine_ids:
                made = self._machines.get(machine_id)
                if made is not None and made.deleted_at is None:
                    made.deleted_at = self._now()

    def close(self) -> None:
        """Nothing is held."""

    # what a test does behind the manager's back

    def alive(self) -> tuple[str, ...]:
        """The machines that cost money now, listed or not."""
        with self._lock:
            return tuple(name for name, made in self._machines.items() if not self._is_gone(made))

    def kill(self, machine_id: str) -> None:
        """The machine vanishes without a word."""
        with self._lock:
            del self._machines[machine_id]

    def fail(self, machine_id: str, reason: str) -> None:
        """The machine is listed as failed from now on."""
        with self._lock:
            made = self._machines[machine_id]
            made.machine = dataclasses.replace(made.machine, state=MachineState.FAILED, reason=reason)

    def plant(self, machine_id: str, tags: dict[str, str]) -> None:
        """A machine that nobody asked us for."""
        with self._lock:
            machine = Machine(
                machine_id=machine_id, state=MachineState.RUNNING, tags=tags, address_internal="192.0.2.1"
            )
            self._machines[machine_id] = _Made(machine=machine, made_at=self._now() - self._lag_s)

    def _alive(self) -> int:
        return sum(not self._is_gone(made) for made in self._machines.values())

    def _is_gone(self, made: _Made) -> bool:
        return made.deleted_at is not None and self._now() - made.deleted_at >= self._delete_s

    def _seen(self, made: _Made) -> Machine | None:
        age_s = self._now() - made.made_at
        if age_s < self._lag_s or self._is_gone(made):
            return None
        if made.deleted_at is not None:
            return dataclasses.replace(made.machine, state=MachineState.DELETING)
        if age_s < self._boot_s:
            return dataclasses.replace(made.machine, state=MachineState.CREATING, address_internal=None)
        return made.machine


def _machine(machine_id: str, request: CreateRequest) -> Machine:
    return Machine(
        machine_id=machine_id,
        state=MachineState.RUNNING,
        tags=dict(request.tags),
        address_internal="192.0.2.1",
        user=request.user,
        host_key=request.host_key.public if request.host_key else None,
        placement=request.placement.get("name"),
    )
