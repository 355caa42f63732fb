"""Every answer that GitLab may give to a request for a job, and what becomes of the runner's polls."""

from __future__ import annotations

import os
import pathlib
import signal
import time

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.standing import ended_of, settled

ASKING = "SELECT reservation_id FROM reservations WHERE state = 'asking'"


def count_polls(gitlab):
    """A fault that does no harm and counts the requests for jobs."""
    number = gitlab.add_fault("delay", "request", count=None)
    return lambda: gitlab.fault_struck(number)


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_204_at_once_for_ever_is_asked_no_more_often_than_check_interval(gitlab, make_manager):
    polls = count_polls(gitlab)
    manager = make_manager().start()
    wait_until(polls, 20, "the first poll")
    wait_until(lambda: polls() >= 3, 20, "three polls")
    before, cpu, began = polls(), cpu_s(manager.pid), time.monotonic()
    wait_until(lambda: time.monotonic() - began >= 6, 10)
    asked, spent = polls() - before, cpu_s(manager.pid) - cpu
    # check_interval is 1 s: never more often, and not much less often either
    assert 2 <= asked <= 7
    assert spent < 1.5, f"{spent:.2f} s of CPU in 6 s of an empty queue"
    assert manager.rows("SELECT instance_id FROM instances") == []
    settled(gitlab, manager)


def test_a_held_poll_holds_one_reservation_makes_no_machine_and_ends_with_the_stop_sign(gitlab, make_manager):
    gitlab.set_knobs(hold_s=50)
    polls = count_polls(gitlab)
    manager = make_manager().start()
    wait_until(lambda: polls() == 2, 20, "the held poll")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began >= 4, 10)
    assert polls() == 2
    assert len(manager.rows(ASKING)) == 1
    assert manager.rows("SELECT instance_id FROM instances") == []
    began = time.monotonic()
    assert manager.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5
    assert manager.rows(ASKING) == []


def test_a_held_poll_brings_a_job_the_moment_it_is_queued(gitlab, make_manager):
    gitlab.set_knobs(hold_s=50)
    polls = count_polls(gitlab)
    manager = make_manager(idle=1).start()
    wait_until(lambda: polls() == 2, 20, "the held poll")
    job = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    assert view.assigned_at - view.queued_at < 0.5
    settled(gitlab, manager)


def test_403_three_times_silences_the_runner_for_a_while_and_then_it_asks_again(gitlab, make_manager):
    polls = count_polls(gitlab)
    manager = make_manager(runner_keys='unhealthy_interval = "4s"')
    gitlab.set_runner(manager.runner["id"], revoked=True)
    job = gitlab.enqueue(make_job(script=["true"]))
    manager.start()
    wait_until(lambda: manager.events("runner_unhealthy"), 20, "the verdict")
    began = time.monotonic()
    assert polls() == 3
    gitlab.set_runner(manager.runner["id"], revoked=False)
    wait_until(lambda: polls() > 3, 20, "another poll")
    assert time.monotonic() - began > 3
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    assert len(manager.events("runner_unhealthy")) == 1
    settled(gitlab, manager)


def test_a_reload_makes_an_unhealthy_runner_ask_at_once(gitlab, make_manager):
    manager = make_manager(runner_keys='unhealthy_interval = "1h"')
    gitlab.set_runner(manager.runner["id"], revoked=True)
    manager.start()
    wait_until(lambda: manager.events("runner_unhealthy"), 20, "the verdict")
    gitlab.set_runner(manager.runner["id"], revoked=False)
    manager.send(signal.SIGHUP)
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    settled(gitlab, manager)


REFUSALS = {
    "404": {"kind": "status", "status": 404, "count": 4},
    "409, the race was lost": {"kind": "status", "status": 409, "count": 4},
    "500": {"kind": "status", "status": 500, "count": 6},
    "502 in HTML": {"kind": "html", "status": 502, "count": 6},
    "503": {"kind": "status", "status": 503, "count": 6},
    "a page of HTML that says 201": {"kind": "html", "count": 4},
    "a redirection": {"kind": "status", "status": 302, "headers": {"Location": "http://127.0.0.1:1/"}, "count": 4},
    "a reset in the middle of the request": {"kind": "reset_body", "count": 4},
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_an_answer_that_says_nothing_of_the_token_leaves_the_runner_healthy(gitlab, make_manager, refusal):
    fault = gitlab.add_fault(endpoint="request", **refusal)
    job = gitlab.enqueue(make_job(script=["true"]))
    manager = make_manager().start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    assert gitlab.fault_struck(fault) == refusal["count"]
    assert manager.events("runner_unhealthy") == []
    settled(gitlab, manager)


WAITS = {
    "Retry-After": {"Retry-After": "3"},
    "RateLimit-ResetTime beats Retry-After": {"Retry-After": "600", "RateLimit-ResetTime": None},
}


@pytest.mark.parametrize("headers", WAITS.values(), ids=WAITS.keys())
def test_429_is_asked_again_when_gitlab_said(gitlab, make_manager, headers):
    if "RateLimit-ResetTime" in headers:
        # from the moment the manager asks it is at least three seconds away
        at = time.time() + 9
        headers = headers | {"RateLimit-ResetTime": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))}
    fault = gitlab.add_fault("status", "request", status=429, headers=headers)
    job = gitlab.enqueue(make_job(script=["true"]))
    manager = make_manager().start()
    wait_until(lambda: gitlab.fault_struck(fault), 20, "the refusal")
    refused_at = time.time()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    wanted = at - 1 if "RateLimit-ResetTime" in headers else refused_at + 2.5
    assert wanted <= view.assigned_at <= refused_at + 20
    settled(gitlab, manager)


def test_a_wait_longer_than_a_call_has_patience_for_is_kept_between_calls(gitlab, make_manager):
    fault = gitlab.add_fault("status", "request", status=429, headers={"Retry-After": "600"}, count=None)
    manager = make_manager().start()
    wait_until(lambda: gitlab.fault_struck(fault), 20, "the refusal")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began >= 4, 10)
    assert gitlab.fault_struck(fault) == 1
    assert manager.rows(ASKING) == []
    # the wait is forgiven by a reload, as every bad mark is
    gitlab.lift_fault(fault)
    job = gitlab.enqueue(make_job(script=["true"]))
    manager.send(signal.SIGHUP)
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    settled(gitlab, manager)


def test_an_answer_lost_on_its_way_is_gitlabs_to_hand_out_again(gitlab, make_manager):
    gitlab.set_knobs(ack_within_s=1)
    gitlab.add_fault("lost_answer", "request")
    job = gitlab.enqueue(make_job(script=["echo once"]))
    manager = make_manager().start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts, view.requeued) == ("success", 2, 1)
    assert len(manager.rows("SELECT job_key FROM jobs")) == 1
    assert ended_of(gitlab, view).lines.count("once") == 1
    settled(gitlab, manager)


@pytest.mark.parametrize("kind", ["truncated_json", "content_type"])
def test_a_job_that_cannot_be_read_is_failed_with_a_reason_and_the_next_one_runs(gitlab, make_manager, kind):
    gitlab.add_fault(kind, "request")
    manager = make_manager()
    broken = gitlab.enqueue(make_job(script=["true"]))
    manager.start()
    (view,) = gitlab.wait_for(broken, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    assert ended_of(gitlab, view).has("description is unreadable")
    (line,) = manager.events("payload_unreadable")
    assert line["job_id"] == broken
    whole = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(whole, timeout=30)
    assert view.state == "success"
    assert manager.rows("SELECT job_key FROM jobs WHERE gitlab_job_id = ?", broken) == []
    settled(gitlab, manager)


def test_fields_nobody_has_heard_of_are_ignored(gitlab, make_manager):
    gitlab.add_fault("extra_fields", "*", count=None)
    job = gitlab.enqueue(make_job(script=["echo fine"], after_script=["echo after"]))
    manager = make_manager().start()
    (view,) = gitlab.wait_for(job, timeout=60)
    ended = ended_of(gitlab, view)
    assert ended.end == ("success", "", 0)
    assert {"fine", "after"} <= set(ended.lines)
    settled(gitlab, manager)


def test_a_long_silence_before_the_answer_loses_nothing(gitlab, make_manager):
    silence = gitlab.add_fault("delay", "request", seconds=4)
    manager = make_manager().start()
    wait_until(lambda: gitlab.fault_struck(silence), 20, "a poll")
    job = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    settled(gitlab, manager)


def test_a_paused_runner_hears_204_and_runs_its_jobs_when_it_goes_on(gitlab, make_manager):
    polls = count_polls(gitlab)
    manager = make_manager()
    gitlab.set_runner(manager.runner["id"], paused=True)
    job = gitlab.enqueue(make_job(script=["true"]))
    manager.start()
    wait_until(lambda: polls() >= 4, 20, "some polls")
    assert gitlab.job(job).state == "pending"
    assert manager.events("runner_unhealthy") == []
    gitlab.set_runner(manager.runner["id"], paused=False)
    (view,) = gitlab.wait_for(job, timeout=30)
    assert view.state == "success"
    settled(gitlab, manager)
