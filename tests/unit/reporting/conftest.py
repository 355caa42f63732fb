"""A reporter with a real spool, real lanes and a pretend GitLab; only who listens is a fake."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import make_job
from fleet.demo.state import Knobs
from fleet.gitlab.client import GitLab
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.info import build_info
from fleet.gitlab.outcomes import JobOffer, UpdateOutcome
from fleet.model.job import Outcome
from fleet.reporting.entry import Target
from fleet.reporting.reporter import Reporter
from fleet.runtime.clock import Clock
from fleet.runtime.lanes import Lanes
from fleet.store.spool import Spool
from tests.acceptance.manager import wait_until

SYSTEM_ID = "s_0123456789ab"
INFO = build_info(
    version="1.0",
    executor="instance",
    shell="bash",
    features=frozenset({"trace_checksum", "trace_size", "cancelable", "cancel_gracefully"}),
)


class Listener:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.stops: list[tuple[str, str]] = []
        self.ends: list[tuple[str, str]] = []
        self.reasons: list[str] = []
        self.sent: list[tuple[str, int, int, int]] = []

    def stop_requested(self, key: str, epoch: int, how: str, reason: str) -> None:
        self.stops.append((key, how))
        self.reasons.append(reason)

    def trace_sent(self, sent: list[tuple[str, int, int, int]]) -> None:
        self.sent += sent

    def reported(self, key: str, epoch: int, how: str, reason: str) -> None:
        self.ends.append((key, how))
        self.reasons.append(reason)


class Desk:
    """One reporter and the jobs that it reports."""

    def __init__(self, gitlab: PretendGitLab, directory: Any) -> None:
        self.gitlab = gitlab
        self.runner = gitlab.create_runner()
        self.spool = Spool(directory)
        self.listener = Listener()
        self.lanes = Lanes()
        self.may_speak = True
        self.server = GitLab(Endpoint(url=gitlab.url), user_agent="gitlab-runner 1.0 (x)", now=Clock().wall)
        self.reporter: Reporter = self.new_reporter()

    def new_reporter(self, **keywords: Any) -> Reporter:
        self.reporter = Reporter(
            spool=self.spool,
            listener=self.listener,
            submit=self.lanes.submit,
            may_speak=lambda: self.may_speak,
            **keywords,
        )
        return self.reporter

    def take(self, *, sent: int = 0, retry_limit: int = 10, reasons: list[str] | None = None, **options: Any) -> int:
        """A job that was received, acknowledged and is reported from now on; its id at GitLab."""
        features = {"features": {"failure_reasons": reasons}} if reasons is not None else {}
        queued = self.gitlab.enqueue(make_job(**features), **options)
        offer = self.server.request_job(token=self.runner["token"], system_id=SYSTEM_ID, info=INFO)
        assert isinstance(offer, JobOffer)
        token = offer.payload.token
        answer = self.server.update_job(job_id=queued, token=token, info=INFO, state="running")
        assert answer.outcome is UpdateOutcome.DONE
        target = Target(
            key=f"job{queued}",
            epoch=1,
            job_id=queued,
            token=token,
            server=self.server,
            lane="gitlab",
            info=INFO,
            failure_reasons=tuple(offer.payload.features.failure_reasons),
            retry_limit=retry_limit,
        )
        self.reporter.watch(target, sent=sent)
        return queued

    def prints(self, job: int, text: bytes) -> None:
        """The job's trace grows."""
        key = f"job{job}"
        self.spool.append(key, self.spool.size(key), text)
        self.reporter.grew(key)

    def ends(self, job: int, outcome: Outcome | None = None, *, incomplete: bool = False) -> None:
        self.reporter.finish(f"job{job}", outcome or Outcome(state="success"), incomplete=incomplete)

    def wait_for_end(self, timeout: float = 20.0) -> tuple[str, str]:
        wait_until(lambda: self.listener.ends, timeout, "the end")
        return self.listener.ends[0]

    def count(self, endpoint: str) -> Any:
        """A fault that does no harm and counts calls."""
        number = self.gitlab.add_fault("delay", endpoint, count=None)
        return lambda: self.gitlab.fault_struck(number)

    def close(self) -> None:
        self.lanes.close(10)
        self.reporter.close()
        self.server.close()
        self.spool.close()


@pytest.fixture
def gitlab():
    with PretendGitLab(threads=16, knobs=Knobs(update_interval_s=1)) as server:
        yield server


@pytest.fixture
def desk(gitlab, tmp_path):
    """Ends with the question whether the protocol was kept."""
    made = Desk(gitlab, tmp_path / "spool")
    yield made
    made.close()
    assert gitlab.violations() == []
