"""What GitLab said is written down once the rows can be written again, and GitLab is not asked a second time."""

from __future__ import annotations

import pytest

from fleet.model.job import Outcome
from fleet.reporting import reporter
from fleet.store.engine import StoreUnavailable
from tests.acceptance.manager import wait_until
from tests.unit.reporting.conftest import Listener


class FullDiskListener(Listener):
    """Can write nothing down until its disk has room."""

    def __init__(self) -> None:
        super().__init__()
        self.full = True
        self.refused = 0

    def _write(self) -> None:
        if self.full:
            self.refused += 1
            raise StoreUnavailable("the disk is full")

    def stop_requested(self, key: str, epoch: int, how: str, reason: str) -> None:
        self._write()
        super().stop_requested(key, epoch, how, reason)

    def reported(self, key: str, epoch: int, how: str, reason: str) -> None:
        self._write()
        super().reported(key, epoch, how, reason)


@pytest.fixture
def listener(desk, monkeypatch) -> FullDiskListener:
    monkeypatch.setattr(reporter, "BROKEN_S", 0.1)
    made = FullDiskListener()
    desk.reporter.listener = made
    return made


def test_an_end_that_could_not_be_kept_is_told_once_and_kept_later(desk, listener):
    job = desk.take()
    finals = desk.count("final")
    desk.prints(job, b"all of it\n")
    desk.ends(job, Outcome(state="success"))
    wait_until(lambda: listener.refused >= 3, 20, "some tries to keep it")
    assert desk.reporter.watched() == {f"job{job}"}, "nobody begins to report it anew"
    listener.full = False
    wait_until(lambda: listener.ends, 20, "the end")
    assert listener.ends == [(f"job{job}", "accepted")]
    assert finals() == 1
    wait_until(lambda: desk.reporter.watched() == set(), 5, "the end of the watch")


def test_a_job_that_was_taken_away_is_not_spoken_of_again(desk, listener):
    job = desk.take()
    traces = desk.count("trace")
    desk.gitlab.drop(job)
    desk.prints(job, b"more of it\n")
    wait_until(lambda: listener.refused >= 3, 20, "some tries to keep it")
    assert traces() == 1
    listener.full = False
    wait_until(lambda: listener.stops, 20, "the abort")
    assert listener.stops == [(f"job{job}", "abort")]
    assert traces() == 1


def test_a_cancel_that_could_not_be_kept_is_heard_again_with_the_next_answer(desk, listener):
    job = desk.take()
    desk.prints(job, b"first\n")
    desk.gitlab.wait_for_trace(job, "first", timeout=10)
    desk.gitlab.cancel(job)
    desk.prints(job, b"second\n")
    desk.gitlab.wait_for_trace(job, "second", timeout=10)
    wait_until(lambda: listener.refused >= 1, 10, "the first try to keep it")
    listener.full = False
    desk.prints(job, b"third\n")
    wait_until(lambda: listener.stops, 10, "the cancel")
    assert listener.stops == [(f"job{job}", "cancel")]
    desk.ends(job, Outcome(state="failed", failure_reason="job_canceled"))
    wait_until(lambda: listener.ends, 20, "the end")
