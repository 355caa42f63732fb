from __future__ import annotations

import json
import time

import httpx
import pytest

from fleet.demo.payload import make_job


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"RateLimit-ResetTime": "Tue, 24 Nov 2099 10:00:00 GMT"}),
        (429, {"Retry-After": "2"}),
        (500, {}), (502, {}), (503, {}), (403, {}), (404, {}), (409, {}),
    ],
)  # fmt: skip
def test_a_status_fault_answers_without_doing_the_work(gitlab, runner, status, headers):
    gitlab.enqueue(make_job())
    gitlab.add_fault("status", "request", status=status, headers=headers)
    answer = runner.poll()
    assert answer.status_code == status
    assert headers.items() <= dict(answer.headers).items() or all(
        answer.headers[key] == headers[key] for key in headers
    )
    assert runner.poll().status_code == 201


def test_a_fault_strikes_its_endpoint_and_job_as_often_as_told(gitlab, runner):
    gitlab.enqueue(make_job())
    gitlab.enqueue(make_job())
    spared, struck = runner.take_and_acknowledge(), runner.take_and_acknowledge()
    number = gitlab.add_fault("status", "trace", job_id=struck.id, status=500, count=2, skip=1)
    assert spared.patch(b"x").status_code == 202
    assert struck.put("running").status_code == 200
    assert [struck.patch(b"x").status_code for _ in range(2)] == [202, 500]
    assert struck.patch(b"y").status_code == 500
    assert struck.patch(b"y").status_code == 202
    assert gitlab.fault_struck(number) == 2


def test_a_fault_without_count_lasts_until_it_is_lifted(gitlab, runner):
    number = gitlab.add_fault("status", "request", status=502, count=None)
    assert [runner.poll().status_code for _ in range(4)] == [502] * 4
    gitlab.lift_fault(number)
    assert runner.poll().status_code == 204


def test_the_kinds_of_update_can_be_told_apart(gitlab, runner):
    gitlab.enqueue(make_job())
    for endpoint, status in (("ack", 500), ("touch", 502), ("final", 503)):
        gitlab.add_fault("status", endpoint, status=status)
    job = runner.take()
    assert [job.acknowledge().status_code, job.acknowledge().status_code] == [500, 200]
    assert [job.put("running").status_code, job.put("running").status_code] == [502, 200]
    assert [job.finish().status_code, job.finish().status_code] == [503, 200]
    assert gitlab.violations() == []


def test_html_comes_with_the_status_of_success_and_hands_out_nothing(gitlab, runner):
    queued = gitlab.enqueue(make_job())
    gitlab.add_fault("html", "request")
    answer = runner.poll()
    assert (answer.status_code, answer.headers["Content-Type"]) == (201, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")
    assert gitlab.job(queued).state == "pending"


def test_truncated_json_hands_out_a_job_that_nobody_can_read(gitlab, runner):
    gitlab.set_knobs(ack_within_s=0.2)
    queued = gitlab.enqueue(make_job())
    gitlab.add_fault("truncated_json", "request")
    with pytest.raises(json.JSONDecodeError):
        runner.poll().json()
    gitlab.wait_for(queued, states=["pending"], timeout=5)
    assert runner.take().id == queued


def test_a_wrong_content_type_is_only_a_label(gitlab, runner):
    gitlab.enqueue(make_job())
    gitlab.add_fault("content_type", "request")
    answer = runner.poll()
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.json()["id"] == 1001


def test_unheard_of_fields_appear_everywhere(gitlab, runner):
    gitlab.enqueue(make_job())
    gitlab.add_fault("extra_fields", "request")
    payload = runner.poll().json()
    assert {"unheard_of", "zz_flag"} <= payload.keys()
    assert "unheard_of" in payload["variables"][0]
    assert "unheard_of" in payload["git_info"]


def test_silence_lasts_and_then_the_work_is_done(gitlab, job):
    gitlab.add_fault("delay", "trace", seconds=0.4)
    began = time.monotonic()
    assert job.patch(b"late\n").status_code == 202
    assert time.monotonic() - began >= 0.4
    assert gitlab.trace(job.id) == b"late\n"


def test_a_reset_in_the_middle_of_a_body_stores_nothing(gitlab, job):
    gitlab.add_fault("reset_body", "trace")
    with pytest.raises(httpx.TransportError):
        job.patch(b"x" * 1_000_000)
    assert gitlab.trace(job.id) == b""
    assert job.patch(b"again\n").status_code == 202
    assert gitlab.violations() == []


def test_a_lost_answer_has_done_its_work(gitlab, job):
    gitlab.add_fault("lost_answer", "trace")
    with pytest.raises(httpx.ReadError):
        job.patch(b"hello\n")
    assert gitlab.trace(job.id) == b"hello\n"
    told = job.patch(b"hello\n", start=0)
    assert (told.status_code, told.headers["Range"]) == (416, "0-6")
    job.sent = b"hello\n"
    gitlab.add_fault("lost_answer", "final")
    with pytest.raises(httpx.ReadError):
        job.finish()
    assert gitlab.job(job.id).state == "success"
    assert job.finish().status_code == 403
    assert gitlab.violations() == []


def test_a_lost_acknowledgement_is_forgiven(gitlab, runner):
    gitlab.enqueue(make_job())
    job = runner.take()
    gitlab.add_fault("lost_answer", "ack")
    with pytest.raises(httpx.ReadError):
        job.acknowledge()
    assert job.patch(b"on\n").status_code == 202
    assert gitlab.violations() == []


def test_an_outage_resets_every_call_until_it_ends_and_control_goes_on(gitlab, runner, job):
    gitlab.outage()
    for call in (runner.poll, lambda: job.put("running"), lambda: job.patch(b"x")):
        with pytest.raises(httpx.TransportError):
            call()
    assert gitlab.job(job.id).state == "running"
    gitlab.end_outage()
    assert job.patch(b"x").status_code == 202
    assert gitlab.violations() == []


def test_an_acknowledgement_that_an_outage_swallowed_is_forgiven(gitlab, runner):
    gitlab.enqueue(make_job())
    job = runner.take()
    gitlab.outage()
    with pytest.raises(httpx.TransportError):
        job.acknowledge()
    gitlab.end_outage()
    assert job.patch(b"on\n").status_code == 202
    assert gitlab.counts() == {"running": 1}
    assert gitlab.violations() == []


def test_an_outage_can_have_a_length(gitlab, runner):
    gitlab.outage(0.3)
    with pytest.raises(httpx.TransportError):
        runner.poll()
    by = time.monotonic() + 5
    while time.monotonic() < by:
        try:
            assert runner.poll().status_code == 204
            return
        except httpx.TransportError:
            continue
    raise AssertionError("the outage never ended")


@pytest.mark.parametrize("options", [{"endpoint": "nowhere", "status": 500}, {"endpoint": "trace"}])
def test_a_fault_that_cannot_be_is_refused(gitlab, options):
    with pytest.raises(ValueError, match=r"endpoint|status"):
        gitlab.add_fault("status", **options)
