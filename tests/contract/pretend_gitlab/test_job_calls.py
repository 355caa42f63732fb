from __future__ import annotations

import httpx
import pytest

from fleet.demo.pace import FULL_CHUNK_BYTES
from fleet.demo.payload import make_job


def slugs(gitlab):
    return [line.split(":")[0] for line in gitlab.violations()]


def test_a_job_that_is_told_properly_ends_without_a_breach(gitlab, runner):
    gitlab.enqueue(make_job(), marker="world")
    job = runner.take()
    acknowledged = job.acknowledge()
    assert acknowledged.status_code == 200
    assert acknowledged.headers["Job-Status"] == "running"
    assert acknowledged.headers["X-GitLab-Trace-Update-Interval"] == "3"
    first = job.patch(b"hello wo")
    assert first.status_code == 202
    assert first.headers["Range"] == "0-8"
    assert first.headers["Job-Status"] == "running"
    assert job.put("running", output=job.output()).status_code == 200
    assert job.patch(b"rld\n").headers["Range"] == "0-12"
    ended = job.finish()
    assert (ended.status_code, ended.headers["Job-Status"]) == (200, "success")
    view = gitlab.job(job.id)
    assert view.state == "success"
    assert view.marker_at is not None
    assert view.queued_at <= view.assigned_at <= view.acknowledged_at <= view.first_trace_at <= view.ended_at
    assert [name for _, name, _ in view.events] == [
        "queued", "assigned", "acknowledged", "first_trace", "touch", "trace", "marker", "final", "ended",
    ]  # fmt: skip
    assert gitlab.trace(job.id) == b"hello world\n"
    assert gitlab.violations() == []


def test_a_failed_job_keeps_its_reason_and_exit_code(gitlab, job):
    assert job.finish("failed", failure_reason="script_failure", exit_code=7).status_code == 200
    view = gitlab.job(job.id)
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 7)
    assert gitlab.violations() == []


def test_the_interval_follows_the_knob(gitlab, job):
    gitlab.set_knobs(update_interval_s=60)
    assert job.put("running").headers["X-GitLab-Trace-Update-Interval"] == "60"


class TestRanges:
    def test_a_range_sent_again_after_a_lost_answer_is_told_where_to_go_on(self, gitlab, job):
        job.patch(b"0123456789")
        again = job.patch(b"0123456789", start=0)
        assert again.status_code == 416
        assert again.headers["Range"] == "0-10"
        assert gitlab.violations() == []

    def test_being_told_twice_is_patience_a_third_time_is_a_breach(self, gitlab, job):
        job.patch(b"0123456789")
        for _ in range(2):
            assert job.patch(b"56789", start=5).status_code == 416
        assert slugs(gitlab) == []
        assert job.patch(b"56789", start=5).status_code == 416
        assert slugs(gitlab) == ["range_overlap"]

    def test_a_gap_is_a_breach(self, gitlab, job):
        job.patch(b"0123")
        gap = job.patch(b"89", start=8)
        assert (gap.status_code, gap.headers["Range"]) == (416, "0-4")
        assert slugs(gitlab) == ["range_gap"]
        assert gitlab.violations()[0] == f"range_gap: job {job.id}: PATCH started at 8, 4 bytes are stored"

    def test_a_gap_is_none_when_the_server_lost_the_bytes(self, gitlab, job):
        job.patch(b"0123456789")
        gitlab.truncate_trace(job.id, 4)
        assert job.patch(b"ab").headers["Range"] == "0-4"
        assert job.patch(b"456789ab", start=4).status_code == 202
        assert gitlab.trace(job.id) == b"0123456789ab"
        assert gitlab.violations() == []

    def test_other_bytes_for_the_same_range_are_a_breach(self, gitlab, job):
        job.patch(b"0123456789")
        job.patch(b"012X4", start=0)
        assert gitlab.violations() == [f"different_bytes: job {job.id}: byte 3 is not what was sent for it before"]

    def test_a_range_must_fit_its_body(self, gitlab, job):
        assert job.patch(b"0123", Content_Range="0-4").status_code == 400
        assert job.patch(b"0123", Content_Range="bytes 0-3/4").status_code == 400
        assert slugs(gitlab) == ["wrong_range", "bad_header"]

    def test_an_empty_patch_is_a_breach(self, gitlab, job):
        assert job.patch(b"", Content_Range="0-0").status_code == 400
        assert slugs(gitlab) == ["empty_patch"]

    def test_a_chunk_of_one_mebibyte_is_the_largest(self, gitlab, job):
        assert job.patch(b"x" * FULL_CHUNK_BYTES).status_code == 202
        assert job.patch(b"x" * (FULL_CHUNK_BYTES + 1)).status_code == 413
        assert slugs(gitlab) == ["chunk_too_large"]
        assert gitlab.job(job.id).trace_size == FULL_CHUNK_BYTES


class TestProofs:
    def test_a_call_without_job_token_is_forbidden_and_a_breach(self, gitlab, job):
        body = {"state": "running", "token": job.token}
        assert job.client.put(f"jobs/{job.id}", json=body).status_code in {200, 403}
        headers = {"Content-Type": "text/plain", "Content-Range": "0-0"}
        assert job.client.patch(f"jobs/{job.id}/trace", content=b"x", headers=headers).status_code == 403
        assert slugs(gitlab).count("bad_header") == 2

    def test_another_jobs_token_opens_nothing(self, gitlab, runner, job):
        gitlab.enqueue(make_job())
        other = runner.take_and_acknowledge()
        assert other.patch(b"x", JOB_TOKEN=job.token).status_code == 403
        assert slugs(gitlab) == ["wrong_job_token"]

    def test_a_job_nobody_knows_is_not_found(self, gitlab, job):
        job.id = 77
        assert job.patch(b"x").status_code == 404
        assert slugs(gitlab) == ["unknown_job"]

    def test_an_erased_job_is_not_found_without_a_breach(self, gitlab, job):
        gitlab.erase(job.id)
        assert job.put("running").status_code == 404
        assert gitlab.violations() == []

    @pytest.mark.parametrize("headers", [{"Content_Type": "application/octet-stream"}])
    def test_a_trace_is_plain_text(self, gitlab, job, headers):
        assert job.patch(b"x", **headers).status_code == 202
        assert slugs(gitlab) == ["bad_header"]

    def test_an_update_says_in_full_who_sends_it(self, gitlab, job):
        job.put("running", info={"name": "gitlab-runner"})
        assert set(slugs(gitlab)) == {"bad_info"}

    def test_a_trace_before_the_acknowledgement_is_a_breach(self, gitlab, runner):
        gitlab.enqueue(make_job())
        job = runner.take()
        assert job.patch(b"early\n").status_code == 403
        assert slugs(gitlab) == ["not_acknowledged"]

    def test_a_trace_after_an_acknowledgement_that_went_wrong_is_none(self, gitlab, runner):
        gitlab.enqueue(make_job())
        job = runner.take()
        gitlab.add_fault("status", "ack", status=500)
        assert job.acknowledge().status_code == 500
        assert job.patch(b"going on\n").status_code == 202
        assert gitlab.job(job.id).state == "running"
        assert gitlab.violations() == []


class TestTheFinalUpdate:
    def test_a_wrong_checksum_is_refused_and_a_breach(self, gitlab, job):
        job.patch(b"hello\n")
        wrong = job.finish(output={"checksum": "crc32:00000000", "bytesize": 6})
        assert wrong.status_code == 412
        assert slugs(gitlab) == ["wrong_checksum"]
        assert gitlab.job(job.id).state == "running"

    def test_a_wrong_size_is_refused_and_a_breach(self, gitlab, job):
        job.patch(b"hello\n")
        assert job.finish(output=job.output() | {"bytesize": 5}).status_code == 412
        assert slugs(gitlab) == ["wrong_checksum"]

    def test_without_checksum_it_is_accepted(self, gitlab, job):
        job.patch(b"hello\n")
        assert job.finish(output={}).status_code == 200
        assert gitlab.violations() == []

    def test_after_412_the_whole_trace_is_sent_again(self, gitlab, job):
        job.patch(b"hello ")
        job.patch(b"world\n")
        gitlab.damage_trace(job.id)
        refused = job.finish()
        assert refused.status_code == 412
        assert job.patch(b"hello world\n", start=0).status_code == 202
        assert job.finish().status_code == 200
        assert gitlab.trace(job.id) == b"hello world\n"
        assert gitlab.violations() == []

    def test_after_412_another_story_is_a_breach(self, gitlab, runner):
        gitlab.enqueue(make_job(), final_412=1)
        job = runner.take_and_acknowledge()
        job.patch(b"hello world\n")
        assert job.finish().status_code == 412
        job.patch(b"hello earth\n", start=0)
        assert slugs(gitlab) == ["different_bytes"]

    def test_after_412_another_story_can_be_allowed(self, gitlab, runner):
        gitlab.enqueue(make_job(), final_412=1)
        job = runner.take_and_acknowledge()
        job.patch(b"hello world\n")
        assert job.finish().status_code == 412
        gitlab.allow_rewrite(job.id)
        job.patch(b"the log was lost\n", start=0)
        assert job.finish(output={}).status_code == 200
        assert gitlab.violations() == []

    def test_202_means_the_same_again_one_interval_later(self, gitlab, runner):
        gitlab.set_knobs(update_interval_s=1, slack_s=0.99)
        gitlab.enqueue(make_job(), final_202=2)
        job = runner.take_and_acknowledge()
        job.patch(b"hello\n")
        answers = [job.finish() for _ in range(3)]
        assert [each.status_code for each in answers] == [202, 202, 200]
        assert gitlab.job(job.id).state == "success"

    def test_repeating_a_202_too_early_is_a_breach(self, gitlab, runner):
        gitlab.enqueue(make_job(), final_202=1)
        job = runner.take_and_acknowledge()
        assert [job.finish().status_code, job.finish().status_code] == [202, 200]
        assert slugs(gitlab) == ["too_fast"]

    def test_a_trace_after_an_accepted_final_update_is_a_breach(self, gitlab, runner):
        gitlab.enqueue(make_job(), final_202=1)
        job = runner.take_and_acknowledge()
        job.finish()
        assert job.patch(b"more\n").status_code == 202
        assert slugs(gitlab) == ["trace_after_final"]

    @pytest.mark.parametrize(
        ("state", "fields", "slug"),
        [
            ("done", {}, "bad_state"),
            ("success", {"failure_reason": "script_failure"}, "bad_body"),
            ("success", {"exit_code": 3}, "bad_body"),
            ("failed", {}, "unmapped_failure_reason"),
            ("failed", {"failure_reason": "the_moon"}, "unmapped_failure_reason"),
            ("failed", {"failure_reason": "script_failure", "exit_code": "1"}, "bad_body"),
            ("success", {"output": {"checksum": "00000000", "bytesize": 0}}, "bad_body"),
        ],
    )
    def test_what_it_says_must_make_sense(self, gitlab, job, state, fields, slug):
        job.put(state, **fields)
        assert slugs(gitlab) == [slug]


class TestAfterTheEnd:
    def test_every_call_is_forbidden_and_says_how_it_ended(self, gitlab, job):
        job.finish()
        late = job.put("running")
        assert (late.status_code, late.headers["Job-Status"]) == (403, "success")
        assert slugs(gitlab) == ["call_after_end"]

    def test_one_repetition_of_the_final_update_is_patience(self, gitlab, job):
        job.finish()
        assert job.finish().status_code == 403
        assert slugs(gitlab) == []
        job.finish()
        assert slugs(gitlab) == ["call_after_end"]

    def test_another_final_update_means_that_the_job_was_driven_twice(self, gitlab, job):
        job.finish()
        job.finish("failed", failure_reason="script_failure")
        assert set(slugs(gitlab)) == {"driven_twice", "call_after_end"}

    def test_a_restarted_manager_may_say_the_last_word_again(self, gitlab, job):
        job.finish()
        for _ in range(3):
            gitlab.manager_restarted()
            job.finish()
        assert gitlab.violations() == []


class TestCancelling:
    def test_canceling_is_told_with_a_good_answer_and_ends_canceled(self, gitlab, job):
        assert gitlab.cancel(job.id) == "canceling"
        told = job.patch(b"still running\n")
        assert (told.status_code, told.headers["Job-Status"]) == (202, "canceling")
        ended = job.finish("failed", failure_reason="script_failure", exit_code=1)
        assert (ended.status_code, ended.headers["Job-Status"]) == (200, "canceled")
        assert gitlab.job(job.id).state == "canceled"
        assert gitlab.violations() == []

    def test_a_forced_cancel_is_told_once_and_then_silence_is_due(self, gitlab, job):
        assert gitlab.cancel(job.id, force=True) == "canceled"
        told = job.patch(b"still running\n")
        assert (told.status_code, told.headers["Job-Status"]) == (403, "canceled")
        assert slugs(gitlab) == []
        job.finish("failed", failure_reason="script_failure")
        assert slugs(gitlab) == ["call_after_end"]

    def test_a_job_that_the_server_failed_says_so(self, gitlab, job):
        gitlab.drop(job.id, "trace_size_exceeded")
        told = job.put("running")
        assert (told.status_code, told.headers["Job-Status"]) == (403, "failed")
        assert gitlab.job(job.id).failure_reason == "trace_size_exceeded"

    def test_a_waiting_job_is_canceled_at_once_and_given_to_nobody(self, gitlab, runner):
        queued = gitlab.enqueue(make_job())
        assert gitlab.cancel(queued) == "canceled"
        assert runner.poll().status_code == 204


class TestTwoManagers:
    def test_two_that_drive_one_job_are_a_breach(self, gitlab, new_runner, runner, job):
        other = new_runner(runner.token)
        other.poll()
        job.client = other.client
        job.patch(b"mine\n")
        assert slugs(gitlab) == ["driven_by_two"]

    def test_a_take_over_that_was_announced_is_none(self, gitlab, new_runner, runner, job):
        other = new_runner(runner.token)
        other.poll()
        gitlab.manager_takeover()
        first, job.client = job.client, other.client
        job.patch(b"mine\n")
        job.put("running")
        assert gitlab.violations() == []
        # one call of the former manager may have been in the air, not two
        job.client = first
        job.put("running")
        assert gitlab.violations() == []
        job.put("running")
        assert slugs(gitlab) == ["driven_by_two"]

    def test_the_first_manager_may_take_over_again(self, gitlab, new_runner, runner, job):
        other = new_runner(runner.token)
        other.poll()
        first, second = job.client, other.client
        for client in (second, first, second):
            gitlab.manager_takeover()
            job.client = client
            for _ in range(3):
                job.put("running")
        assert gitlab.violations() == []


def test_the_server_keeps_serving_after_a_client_breaks_off_in_a_body(gitlab, runner, job):
    def half() -> object:
        yield b"half"
        raise RuntimeError("gone")

    headers = {"JOB-TOKEN": job.token, "Content-Range": "0-9", "Content-Type": "text/plain", "Content-Length": "10"}
    with httpx.Client(base_url=job.client.base_url) as client, pytest.raises(RuntimeError):
        client.patch(f"jobs/{job.id}/trace", content=half(), headers=headers)
    assert job.patch(b"whole\n").status_code == 202
    assert gitlab.trace(job.id) == b"whole\n"
    assert gitlab.violations() == []
