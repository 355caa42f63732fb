"""Clouds with one illness each: wrappers around a provider that works, named for what is wrong with it.

Each does to its calls what a real cloud was seen to do, and nothing else. `times` says how often the illness strikes
before the cloud is well again; None is for ever. All are safe to call from several threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from typing_extensions import override

from fleet.sdk.errors import (
    CredentialsRefused,
    OutOfCapacity,
    ProviderError,
    ProviderUnavailable,
    QuotaExceeded,
    Scope,
    Throttled,
)
from fleet.sdk.provider import Created, CreateRequest, Machine, Provider, ProviderInfo

CREATE, LIST, DELETE = "create", "list", "delete"
ALL_CALLS = (CREATE, LIST, DELETE)


class SickCloud:
    """What all share: every call goes to the well one.

    Args:
        well: the provider that works.
        times: how often the illness strikes.
    """

    def __init__(self, well: Provider, *, times: int | None = None) -> None:
        self.well = well
        self._left = times
        self._lock = threading.Lock()

    def info(self) -> ProviderInfo:
        return self.well.info()

    def create(self, request: CreateRequest) -> Created:
        """As the well one does."""
        return self.well.create(request)

    def list(self) -> Iterable[Machine]:
        """As the well one does."""
        return self.well.list()

    def delete(self, machine_ids: Sequence[str]) -> None:
        """As the well one does."""
        self.well.delete(machine_ids)

    def close(self) -> None:
        """As the well one does."""
        self.well.close()

    def strikes(self) -> bool:
        """Whether the illness strikes now; it is then used up by one."""
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0


class SlowCloud(SickCloud):
    """Every call does its work after `seconds`."""

    def __init__(
        self,
        well: Provider,
        *,
        seconds: float,
        calls: Collection[str] = ALL_CALLS,
        sleep: Callable[[float], None] = time.sleep,
        times: int | None = None,
    ) -> None:
        super().__init__(well, times=times)
        self._seconds = seconds
        self._calls = frozenset(calls)
        self._sleep = sleep

    def _wait(self, call: str) -> None:
        if call in self._calls and self.strikes():
            self._sleep(self._seconds)

    @override
    def create(self, request: CreateRequest) -> Created:
        self._wait(CREATE)
        return super().create(request)

    @override
    def list(self) -> Iterable[Machine]:
        self._wait(LIST)
        return super().list()

    @override
    def delete(self, machine_ids: Sequence[str]) -> None:
        self._wait(DELETE)
        super().delete(machine_ids)


class HangingCloud(SlowCloud):
    """Calls do not come back, or only when `let_go` is called; `first_works` makes them do their work before."""

    def __init__(
        self,
        well: Provider,
        *,
        calls: Collection[str] = ALL_CALLS,
        first_works: bool = False,
        times: int | None = None,
    ) -> None:
        self._free = threading.Event()
        super().__init__(well, seconds=0, calls=calls, sleep=lambda _: _wait_for(self._free), times=times)
        self._first_works = first_works

    @override
    def create(self, request: CreateRequest) -> Created:
        if self._first_works:
            self.well.create(request)
        return super().create(request)

    def let_go(self) -> None:
        """Let every call go on."""
        self._free.set()

    @override
    def close(self) -> None:
        self.let_go()
        super().close()


class RefusingCloud(SickCloud):
    """Answers with an error and does nothing; `placements` limits it to these, by name.

    Args:
        error: makes the error of one call.
        calls: which calls it refuses.
    """

    def __init__(
        self,
        well: Provider,
        *,
        error: Callable[[], Exception],
        calls: Collection[str] = (CREATE,),
        placements: Collection[str] = (),
        times: int | None = None,
    ) -> None:
        super().__init__(well, times=times)
        self._error = error
        self._calls = frozenset(calls)
        self._placements = frozenset(placements)

    def _refuse(self, call: str) -> None:
        if call in self._calls and self.strikes():
            raise self._error()

    @override
    def create(self, request: CreateRequest) -> Created:
        if not self._placements or request.placement.get("name") in self._placements:
            self._refuse(CREATE)
        return super().create(request)

    @override
    def list(self) -> Iterable[Machine]:
        self._refuse(LIST)
        return super().list()

    @override
    def delete(self, machine_ids: Sequence[str]) -> None:
        self._refuse(DELETE)
        super().delete(machine_ids)


class FullCloud(RefusingCloud):
    """Has no machine of that kind just now."""

    def __init__(
        self, well: Provider, *, scope: str = "placement", placements: Collection[str] = (), times: int | None = None
    ) -> None:
        said = f"there is no such machine in this {scope} just now; try another one"
        error = QuotaExceeded if scope == "account" else OutOfCapacity
        super().__init__(well, error=lambda: error(said, scope=Scope(scope)), placements=placements, times=times)


class ThrottlingCloud(RefusingCloud):
    """Wants fewer calls."""

    def __init__(
        self,
        well: Provider,
        *,
        retry_after_s: float | None = None,
        calls: Collection[str] = (CREATE,),
        times: int | None = None,
    ) -> None:
        super().__init__(
            well,
            error=lambda: Throttled("too many calls; ask less often", retry_after_s=retry_after_s),
            calls=calls,
            times=times,
        )


class LockedCloud(RefusingCloud):
    """Refuses our credentials."""

    def __init__(self, well: Provider, *, calls: Collection[str] = (CREATE,), times: int | None = None) -> None:
        said = "the credentials are refused; renew them"
        super().__init__(well, error=lambda: CredentialsRefused(said), calls=calls, times=times)


class BlindCloud(RefusingCloud):
    """Cannot list; what exists is unknown."""

    def __init__(self, well: Provider, *, times: int | None = None) -> None:
        said = "the listing broke off at page 2; it will be tried again"
        super().__init__(well, error=lambda: ProviderUnavailable(said), calls=(LIST,), times=times)


class BuggyCloud(RefusingCloud):
    """Raises what no provider may raise."""

    def __init__(self, well: Provider, *, calls: Collection[str] = ALL_CALLS, times: int | None = None) -> None:
        super().__init__(well, error=lambda: KeyError("instanceState"), calls=calls, times=times)


class ForgetfulCloud(SickCloud):
    """Makes the machines, and the answer gets lost: whoever asked does not know whether there are any."""

    @override
    def create(self, request: CreateRequest) -> Created:
        created = super().create(request)
        if self.strikes():
            raise ProviderUnavailable("the connection broke before the answer came; whether it was done is unknown")
        return created


class LyingCloud(SickCloud):
    """Makes the machines, and says for certain that it did not."""

    def __init__(
        self, well: Provider, *, error: Callable[[], ProviderError] | None = None, times: int | None = None
    ) -> None:
        super().__init__(well, times=times)
        self._error = error or (lambda: OutOfCapacity("there is no such machine here just now"))

    @override
    def create(self, request: CreateRequest) -> Created:
        created = super().create(request)
        if self.strikes():
            raise self._error()
        return created


class StutteringCloud(SickCloud):
    """Takes every request twice and names every machine twice."""

    @override
    def create(self, request: CreateRequest) -> Created:
        super().create(request)
        created = super().create(request)
        return Created(machine_ids=(*created.machine_ids, *created.machine_ids), shortfall=created.shortfall)


class LaggingCloud(SickCloud):
    """Its listing does not show a machine before it is `lag_s` old, counted from the end of its creation."""

    def __init__(self, well: Provider, *, lag_s: float, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(well)
        self._lag_s = lag_s
        self._now = now
        self._made_at: dict[str, float] = {}

    @override
    def create(self, request: CreateRequest) -> Created:
        created = super().create(request)
        for machine_id in created.machine_ids:
            self._made_at.setdefault(machine_id, self._now())
        return created

    @override
    def list(self) -> Iterable[Machine]:
        since = self._now() - self._lag_s
        return [each for each in super().list() if self._made_at.get(each.machine_id, since) <= since]


class StubbornCloud(SickCloud):
    """Accepts a deletion and does nothing, `times` times."""

    def __init__(self, well: Provider, *, times: int | None = None) -> None:
        super().__init__(well, times=times)
        self.asked: dict[str, int] = {}

    @override
    def delete(self, machine_ids: Sequence[str]) -> None:
        for machine_id in machine_ids:
            self.asked[machine_id] = self.asked.get(machine_id, 0) + 1
        if not self.strikes():
            super().delete(machine_ids)


class ShortCloud(SickCloud):
    """Makes at most `most` machines of a request, and says so.

    The others are ended at once, so they never count: a token has one answer only.
    """

    def __init__(self, well: Provider, *, most: int, times: int | None = None) -> None:
        super().__init__(well, times=times)
        self._most = most

    @override
    def create(self, request: CreateRequest) -> Created:
        created = super().create(request)
        if len(created.machine_ids) <= self._most or not self.strikes():
            return created
        super().delete(created.machine_ids[self._most :])
        said = f"only {self._most} of {request.count} machines could be had here just now"
        return Created(machine_ids=created.machine_ids[: self._most], shortfall=OutOfCapacity(said))


ILLNESSES: Mapping[str, type[SickCloud]] = {
    each.__name__: each
    for each in (
        BlindCloud,
        BuggyCloud,
        ForgetfulCloud,
        FullCloud,
        HangingCloud,
        LaggingCloud,
        LockedCloud,
        LyingCloud,
        ShortCloud,
        SlowCloud,
        StubbornCloud,
        StutteringCloud,
        ThrottlingCloud,
    )
}


def _wait_for(event: threading.Event) -> None:
    event.wait()
