"""The end of a job at GitLab: every answer to the final update, lost answers, outages, and giving up."""

from __future__ import annotations

import time

import pytest

from fleet.model.job import Outcome
from fleet.reporting import finale
from tests.acceptance.manager import wait_until

FAILED = Outcome(state="failed", failure_reason="script_failure", exit_code=7)


def finals(gitlab, job):
    return [detail for _, event, detail in gitlab.job(job).events if event == "final"]


def spoken(desk, text=b"all of it\n"):
    """A job whose trace GitLab has."""
    job = desk.take()
    desk.prints(job, text)
    desk.gitlab.wait_for_trace(job, text.decode().strip(), timeout=10)
    return job


def test_a_result_is_told_with_exit_code_and_reason(desk):
    job = spoken(desk)
    desk.ends(job, FAILED)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    view = desk.gitlab.job(job)
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 7)
    assert desk.reporter.watched() == set()


def test_202_is_repeated_after_the_interval_and_never_counts(desk):
    job = desk.take(final_202=3, retry_limit=1)
    desk.prints(job, b"trace\n")
    began = time.monotonic()
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert time.monotonic() - began >= 2.7
    assert len(finals(desk.gitlab, job)) == 4


def test_412_sends_the_whole_trace_again(desk):
    job = spoken(desk)
    desk.gitlab.damage_trace(job)
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert desk.gitlab.trace(job) == b"all of it\n"


def test_412_for_ever_ends_after_the_tries_that_are_allowed(desk):
    job = desk.take(final_412=1000, retry_limit=2)
    desk.prints(job, b"trace\n")
    desk.ends(job)
    assert desk.wait_for_end(60) == (f"job{job}", "given_up")
    assert 6 <= len(finals(desk.gitlab, job)) <= 10
    assert "again and again" in desk.listener.reasons[0]


def test_416_at_the_end_goes_on_where_gitlab_stands(desk):
    job = spoken(desk, b"0123456789\n")
    desk.gitlab.truncate_trace(job, 3)
    desk.spool.append(f"job{job}", 11, b"the rest\n")
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert desk.gitlab.trace(job) == b"0123456789\nthe rest\n"


def test_offsets_that_jump_to_and_fro_count_as_refusals(desk):
    job = desk.take(retry_limit=2)
    for at in range(100):
        desk.gitlab.add_fault("status", "trace", status=416, headers={"Range": f"0-{at % 2}"})
    desk.spool.append(f"job{job}", 0, b"0123456789")
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "given_up")


def test_a_trace_that_gitlab_does_not_know_counts_as_sent(desk):
    job = desk.take()
    desk.gitlab.add_fault("status", "trace", status=404, count=None)
    fault = desk.gitlab.add_fault("status", "final", status=404)
    desk.prints(job, b"trace\n")
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "taken")
    assert desk.gitlab.fault_struck(fault) == 1


@pytest.mark.parametrize("endpoint", ["trace", "final"])
def test_an_answer_that_is_lost_after_the_work_leads_to_one_end(desk, endpoint):
    desk.gitlab.add_fault("lost_answer", endpoint)
    job = desk.take()
    desk.prints(job, b"trace\n")
    desk.ends(job, FAILED)
    how = {"trace": "accepted", "final": "taken"}[endpoint]
    assert desk.wait_for_end() == (f"job{job}", how)
    view = desk.gitlab.job(job)
    assert (view.state, view.exit_code) == ("failed", 7)
    assert desk.gitlab.trace(job) == b"trace\n"


def test_refusals_are_counted_and_then_given_up(desk):
    fault = desk.gitlab.add_fault("status", "final", status=400, count=None)
    job = desk.take(retry_limit=3)
    desk.prints(job, b"trace\n")
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "given_up")
    assert desk.gitlab.fault_struck(fault) == 3
    assert "refused the end of the job 3 times" in desk.listener.reasons[0]


def test_an_outage_never_counts_as_a_refusal(desk):
    job = desk.take(retry_limit=1)
    desk.prints(job, b"trace\n")
    desk.gitlab.outage()
    desk.ends(job)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 4, 10)
    assert desk.listener.ends == []
    desk.gitlab.end_outage()
    assert desk.wait_for_end(40) == (f"job{job}", "accepted")


def test_a_final_update_without_checksum_when_bytes_are_gone(desk):
    job = spoken(desk)
    desk.ends(job, incomplete=True)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert finals(desk.gitlab, job) == ["success None None"]


REASONS = {
    "as it is, where GitLab knows it": (["runner_configuration_error"], "runner_configuration_error"),
    "as the older word, where it does not": ([], "script_failure"),
}


@pytest.mark.parametrize(("known", "said"), REASONS.values(), ids=REASONS.keys())
def test_a_reason_is_told(desk, known, said):
    job = desk.take(reasons=known)
    desk.ends(job, Outcome(state="failed", failure_reason="runner_configuration_error"))
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert desk.gitlab.job(job).failure_reason == said


def test_the_wait_between_tries_grows_to_its_bound_and_has_no_end_of_its_own():
    waits = [finale._backoff_s(tries, 30.0) for tries in (1, 2, 3, 4, 5, 6, 7, 5000)]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
