"""Every answer that GitLab may give to what is told of a job: the acknowledgement, the trace, the end."""

from __future__ import annotations

import time

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.standing import ended_of, settled, standing

TALK = ("for i in 1 2 3 4 5; do echo line $i; sleep 0.4; done",)
SAID = [f"line {number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("reports") / "m") as made:
        yield made


def said(ended):
    return [line for line in ended.lines if line.startswith("line ")]


FAULTS = {
    "the acknowledgement meets 500 each time": ("ack", {"kind": "status", "status": 500, "count": 5}),
    "the acknowledgement meets 409": ("ack", {"kind": "status", "status": 409}),
    "the acknowledgement meets 400": ("ack", {"kind": "status", "status": 400}),
    "the acknowledgement is answered by a page": ("ack", {"kind": "html"}),
    "the answer to the acknowledgement is lost": ("ack", {"kind": "lost_answer"}),
    "the acknowledgement is cut off": ("ack", {"kind": "reset_body"}),
    "a piece of trace is cut off twice": ("trace", {"kind": "reset_body", "count": 2}),
    "the answer to a piece is lost": ("trace", {"kind": "lost_answer", "skip": 1}),
    "the answer to the first piece is lost": ("trace", {"kind": "lost_answer"}),
    "a piece meets 500": ("trace", {"kind": "status", "status": 500, "count": 3}),
    "a piece meets 502 in HTML": ("trace", {"kind": "html", "status": 502, "count": 2}),
    "a piece is answered by a page that says 202": ("trace", {"kind": "html", "count": 2}),
    "a piece meets 429": ("trace", {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}, "count": 2}),
    "a piece meets a page that says 403": ("trace", {"kind": "html", "status": 403}),
    "the final update meets 500": ("final", {"kind": "status", "status": 500, "count": 6}),
    "the final update meets 503 in HTML": ("final", {"kind": "html", "status": 503, "count": 2}),
    "the final update meets 400": ("final", {"kind": "status", "status": 400, "count": 2}),
    "the final update is answered by a page that says 200": ("final", {"kind": "html", "count": 2}),
    "the answer to the final update is lost": ("final", {"kind": "lost_answer"}),
    "the final update is cut off": ("final", {"kind": "reset_body", "count": 2}),
    "the final update meets a silence": ("final", {"kind": "delay", "seconds": 3}),
    "the final update meets 429": ("final", {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}),
}  # fmt: skip


@pytest.mark.parametrize(("endpoint", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_a_job_ends_once_with_its_whole_trace_although(place, endpoint, fault):
    number = place.gitlab.add_fault(endpoint=endpoint, **fault)
    ended = place.run(*TALK)
    assert ended.end == ("success", "", 0)
    assert ended.view.attempts == 1
    assert said(ended) == SAID
    assert place.gitlab.fault_struck(number) == fault.get("count", 1)


def test_an_acknowledgement_that_finds_no_job_drops_it(place):
    place.gitlab.add_fault("status", "ack", status=404)
    job = place.enqueue("echo never")
    wait_until(
        lambda: place.manager.rows("SELECT 1 FROM jobs WHERE gitlab_job_id = ? AND state = 'abandoned'", job), 20
    )
    place.settled()
    assert place.gitlab.trace(job) == b""
    place.gitlab.cancel(job, force=True)


def test_202_on_the_final_update_is_repeated_until_the_trace_is_stored(place):
    job = place.gitlab.enqueue(make_job(script=TALK), final_202=3)
    ended = place.ended(job)
    assert ended.end == ("success", "", 0)
    assert sum(name == "final" for _, name, _ in ended.view.events) == 4


def test_412_is_answered_with_the_whole_trace(place):
    job = place.enqueue(*TALK)
    place.gitlab.wait_for_trace(job, "line 3")
    place.gitlab.damage_trace(job)
    ended = place.ended(job)
    assert ended.end == ("success", "", 0)
    assert said(ended) == SAID
    assert sum(name == "final" for _, name, _ in ended.view.events) == 2


def test_416_goes_on_where_gitlab_stands(place):
    job = place.enqueue(*TALK)
    place.gitlab.wait_for_trace(job, "line 2")
    place.gitlab.truncate_trace(job, 20)
    ended = place.ended(job)
    assert ended.end == ("success", "", 0)
    assert said(ended) == SAID


def test_an_interval_of_a_minute_delays_neither_the_first_line_nor_the_end(place):
    place.gitlab.set_knobs(update_interval_s=60)
    try:
        began = time.monotonic()
        ended = place.run("echo line 1", "sleep 2", "echo line 2")
        assert time.monotonic() - began < 15
    finally:
        place.gitlab.set_knobs(update_interval_s=1)
    assert ended.end == ("success", "", 0)
    assert ended.view.first_trace_at < ended.view.acknowledged_at + 4
    assert said(ended) == ["line 1", "line 2"]


def test_the_slot_is_free_while_gitlab_is_away_and_everything_is_told_afterwards(place):
    jobs = [place.enqueue(*TALK) for _ in range(2)]
    for job in jobs:
        place.gitlab.wait_for_trace(job, "line 2")
    place.gitlab.outage()
    held = "SELECT lease_id FROM leases WHERE state NOT IN ('released', 'lost')"
    wait_until(lambda: not place.manager.rows(held), 30, "the release of both slots")
    finishing = place.manager.rows("SELECT job_key FROM jobs WHERE state = 'finishing'")
    assert len(finishing) == 2
    assert [place.gitlab.job(job).state for job in jobs] == ["running", "running"]
    place.gitlab.end_outage()
    for job in jobs:
        ended = place.ended(job)
        assert ended.end == ("success", "", 0)
        assert said(ended) == SAID


REASONS = {
    "GitLab knows the reason": ({"failure_reasons": ["runner_configuration_error"]}, "runner_configuration_error"),
    "an older GitLab does not": ({"failure_reasons": []}, "script_failure"),
    "a very old GitLab says nothing of reasons": ({}, "script_failure"),
}


@pytest.mark.parametrize(("features", "reason"), REASONS.values(), ids=REASONS.keys())
def test_a_failure_has_the_word_that_this_gitlab_knows(place, features, reason):
    ended = place.run("true", variables={"GIT_CLONE_PATH": "/builds/elsewhere"}, features=features)
    assert ended.end == ("failed", reason, 0)
    assert ended.has("GIT_CLONE_PATH")


def test_a_job_that_ends_at_gitlab_during_an_outage_is_not_told_again(place):
    job = place.enqueue(*TALK)
    place.gitlab.wait_for_trace(job, "line 2")
    place.gitlab.outage()
    held = "SELECT lease_id FROM leases WHERE state NOT IN ('released', 'lost')"
    wait_until(lambda: not place.manager.rows(held), 30, "the release of the slot")
    place.gitlab.drop(job)
    place.gitlab.end_outage()
    ended = place.ended(job)
    assert ended.end == ("failed", "stuck_or_timeout_failure", 0)


def test_a_machine_is_deleted_while_gitlab_is_away(gitlab, make_manager):
    manager = make_manager(idle_time="1s").start()
    job = gitlab.enqueue(make_job(script=TALK))
    gitlab.wait_for_trace(job, "line 2", timeout=60)
    gitlab.outage()
    states = "SELECT DISTINCT state FROM instances"
    wait_until(lambda: manager.rows(states) == [{"state": "gone"}], 60, "the end of the machine")
    assert manager.machines() == []
    assert gitlab.job(job).state == "running"
    gitlab.end_outage()
    (view,) = gitlab.wait_for(job, timeout=60)
    ended = ended_of(gitlab, view)
    assert ended.end == ("success", "", 0)
    assert said(ended) == SAID
    settled(gitlab, manager)
