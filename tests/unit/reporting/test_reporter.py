"""What is told of a job while it runs, against a real server: pieces, touches, news, and every bad answer."""

from __future__ import annotations

import itertools
import time

from fleet.model.job import Outcome
from tests.acceptance.manager import wait_until

MIB = 1 << 20


def events(gitlab, job, name):
    return [at for at, event, _ in gitlab.job(job).events if event == name]


def wait_s(seconds):
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began >= seconds, seconds + 5)


def test_the_first_output_and_the_prologue_share_one_piece(desk):
    job = desk.take()
    desk.spool.append(f"job{job}", 0, b"prologue\n")
    desk.prints(job, b"first line\n")
    desk.gitlab.wait_for_trace(job, "first line", timeout=10)
    assert len(events(desk.gitlab, job, "first_trace")) == 1
    assert events(desk.gitlab, job, "trace") == []


def test_a_prologue_alone_is_sent_when_the_job_stays_silent(desk):
    job = desk.take()
    desk.spool.append(f"job{job}", 0, b"prologue\n")
    desk.gitlab.wait_for_trace(job, "prologue", timeout=10)


def test_pieces_keep_the_interval_and_the_end_does_not_wait_for_it(desk):
    desk.gitlab.set_knobs(update_interval_s=60)
    job = desk.take()
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)
    desk.prints(job, b"two\n")
    wait_s(1.5)
    assert desk.gitlab.trace(job) == b"one\n"
    began = time.monotonic()
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert time.monotonic() - began < 2
    assert desk.gitlab.trace(job) == b"one\ntwo\n"


def test_output_that_comes_before_a_touch_is_due_does_not_jump_the_interval(desk):
    desk.gitlab.set_knobs(update_interval_s=4)
    desk.new_reporter(touch_s=1.0)
    job = desk.take()
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)
    desk.prints(job, b"two\n")
    desk.gitlab.wait_for_trace(job, "two", timeout=20)
    assert len(events(desk.gitlab, job, "touch")) >= 2
    # the server judges the pace; a third piece brings its verdict
    desk.prints(job, b"three\n")
    desk.gitlab.wait_for_trace(job, "three", timeout=20)
    assert desk.gitlab.violations() == []


def test_a_silent_job_is_touched_again_and_again(desk):
    desk.new_reporter(touch_s=0.5)
    job = desk.take()
    wait_until(lambda: len(events(desk.gitlab, job, "touch")) >= 3, 15, "three touches")
    at = events(desk.gitlab, job, "touch")
    assert all(later - earlier >= 0.45 for earlier, later in itertools.pairwise(at))


def test_a_touch_tells_a_silent_job_of_its_cancel_once(desk):
    desk.new_reporter(touch_s=0.4)
    job = desk.take()
    desk.gitlab.cancel(job)
    wait_until(lambda: len(events(desk.gitlab, job, "touch")) >= 3, 15)
    assert desk.listener.stops == [(f"job{job}", "cancel")]
    desk.ends(job, Outcome(state="failed", failure_reason="job_canceled"))
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert desk.gitlab.job(job).state == "canceled"


def test_a_touch_that_fails_is_repeated_after_an_interval_not_at_once(desk):
    desk.new_reporter(touch_s=0.3)
    fault = desk.gitlab.add_fault("status", "touch", status=400, count=3)
    desk.gitlab.set_knobs(update_interval_s=1)
    job = desk.take()
    wait_until(lambda: desk.gitlab.fault_struck(fault) == 1, 10)
    began = time.monotonic()
    wait_until(lambda: len(events(desk.gitlab, job, "touch")) >= 1, 20, "a touch that went well")
    assert time.monotonic() - began > 2.5


def test_a_server_that_is_away_is_not_hammered_by_a_chatty_job(desk):
    job = desk.take()
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)
    fault = desk.gitlab.add_fault("reset_body", "trace", count=None)
    for _ in range(40):
        desk.prints(job, b"more\n")
        wait_s(0.05)
    assert desk.gitlab.fault_struck(fault) <= 3
    desk.gitlab.lift_fault(fault)
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert desk.gitlab.trace(job) == b"one\n" + b"more\n" * 40


def test_retry_after_is_kept_though_there_is_more_to_say(desk):
    job = desk.take()
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)
    fault = desk.gitlab.add_fault("status", "trace", status=429, headers={"Retry-After": "100"}, count=None)
    desk.prints(job, b"two\n")
    wait_until(lambda: desk.gitlab.fault_struck(fault) == 1, 10)
    for _ in range(5):
        desk.prints(job, b"more\n")
        wait_s(0.3)
    assert desk.gitlab.fault_struck(fault) == 1
    desk.gitlab.lift_fault(fault)
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")


def test_where_gitlab_says_to_go_on_there_it_goes_on(desk):
    job = desk.take()
    desk.prints(job, b"0123456789")
    desk.gitlab.wait_for_trace(job, "9", timeout=10)
    desk.gitlab.truncate_trace(job, 4)
    desk.prints(job, b"abc")
    desk.gitlab.wait_for_trace(job, "abc", timeout=10)
    assert desk.gitlab.trace(job) == b"0123456789abc"


def test_an_offset_that_leads_nowhere_is_not_followed_in_circles(desk):
    job = desk.take()
    fault = desk.gitlab.add_fault("status", "trace", status=416, headers={"Range": "0-0"}, count=None)
    desk.prints(job, b"0123456789")
    wait_until(lambda: desk.gitlab.fault_struck(fault) >= 2, 10)
    before = desk.gitlab.fault_struck(fault)
    wait_s(2.5)
    assert desk.gitlab.fault_struck(fault) - before <= 6
    desk.gitlab.lift_fault(fault)
    desk.ends(job)
    assert desk.wait_for_end() == (f"job{job}", "accepted")
    assert desk.gitlab.trace(job) == b"0123456789"


def test_a_trace_that_gitlab_does_not_know_is_passed_over_and_touches_go_on(desk):
    desk.new_reporter(touch_s=0.5)
    job = desk.take()
    fault = desk.gitlab.add_fault("status", "trace", status=404, count=None)
    for _ in range(30):
        desk.prints(job, b"line\n")
        wait_s(0.1)
    assert desk.gitlab.fault_struck(fault) <= 6
    assert len(events(desk.gitlab, job, "touch")) >= 2
    desk.gitlab.erase(job)
    wait_until(lambda: desk.listener.stops == [(f"job{job}", "abort")], 10, "the abort")
    assert desk.reporter.watched() == set()


def test_a_job_that_was_canceled_at_gitlab_is_aborted_and_nothing_more_is_said(desk):
    job = desk.take()
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)
    desk.gitlab.cancel(job, force=True)
    desk.prints(job, b"two\n")
    wait_until(lambda: desk.listener.stops == [(f"job{job}", "abort")], 10, "the abort")
    assert "canceled" in desk.listener.reasons[0]
    calls = desk.count("*")
    desk.prints(job, b"three\n")
    desk.ends(job)
    wait_s(2)
    assert calls() == 0
    assert desk.listener.ends == []


def test_a_large_trace_goes_out_in_full_pieces_without_waiting(desk):
    job = desk.take()
    desk.gitlab.set_knobs(update_interval_s=30)
    desk.prints(job, b"x" * (5 * MIB + 17))
    began = time.monotonic()
    wait_until(lambda: desk.gitlab.job(job).trace_size == 5 * MIB + 17, 20, "all of it")
    assert time.monotonic() - began < 10
    assert 6 <= len(events(desk.gitlab, job, "trace")) + len(events(desk.gitlab, job, "first_trace")) <= 7


def test_nothing_is_said_while_our_claims_have_run_out(desk):
    desk.may_speak = False
    job = desk.take()
    calls = desk.count("trace")
    desk.prints(job, b"one\n")
    wait_s(1.5)
    assert calls() == 0
    desk.may_speak = True
    desk.gitlab.wait_for_trace(job, "one", timeout=10)


def test_an_error_of_our_own_is_tried_again_and_no_job_is_forgotten(desk, monkeypatch):
    monkeypatch.setattr("fleet.reporting.reporter.BROKEN_S", 0.3)
    job = desk.take()
    broken = [OSError("the disk cannot be read")] * 2
    read = desk.spool.read

    def sick_read(*arguments):
        if broken:
            raise broken.pop()
        return read(*arguments)

    monkeypatch.setattr(desk.spool, "read", sick_read)
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)


def test_progress_is_told_once_for_each_change(desk):
    job = desk.take()
    desk.prints(job, b"one\n")
    desk.gitlab.wait_for_trace(job, "one", timeout=10)
    wait_until(lambda: any(entry[2] == 4 for entry in desk.reporter.progress()), 10)
    assert desk.reporter.progress() == []
