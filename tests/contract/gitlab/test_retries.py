"""The inner layer of retries, and what is counted."""

import secrets
import threading
import time

import pytest

from fleet.gitlab.cancel import Cancel
from fleet.gitlab.client import _pause
from fleet.gitlab.outcomes import NoJob, PatchOutcome, Unavailable
from tests.contract.gitlab.scripted_server import answer, reset, until

TOKEN = secrets.token_hex(12)
RESET_IN_7_S = {"Date": "Thu, 01 Jan 2026 12:00:00 GMT", "RateLimit_ResetTime": "Thu, 01 Jan 2026 12:00:07 GMT"}


def ask(gitlab, **more):
    return gitlab.request_job(token=TOKEN, system_id="s_1", info={}, **more)


def patch(gitlab, **more):
    return gitlab.patch_trace(job_id=7, token=TOKEN, start=0, data=b"x", **more)


def test_one_call_is_one_request_id_and_one_body_however_often_it_is_sent(server, gitlab):
    server.script = [answer(503), answer(500), answer(202)]
    assert patch(gitlab).outcome is PatchOutcome.ADVANCED
    assert len({asked.headers["x-request-id"] for asked in server.asked}) == 1
    assert [asked.body for asked in server.asked] == [b"x"] * 3


def test_the_waits_in_between_grow_and_are_counted(server, gitlab, seen):
    server.script = [answer(503)]
    patch(gitlab)
    assert len(seen.waits) == 4
    for number, wait_s in enumerate(seen.waits, start=1):
        assert 0.1 <= wait_s <= 0.1 * 2**number
    assert seen.retries == [{"path": "jobs/{id}/trace", "method": "PATCH"}] * 4
    (observed,) = seen.observed
    assert observed.pop("seconds") >= 0
    assert observed == {"endpoint": "patch_trace", "method": "PATCH", "status": 503, "runner": ""}


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({**RESET_IN_7_S, "Retry_After": "3"}, 7),
        ({"Retry_After": "3"}, 3),
        ({"RateLimit_ResetTime": "Thu, 01 Jan 2026 00:00:09 GMT"}, 9),  # by our own clock, see conftest
        ({"RateLimit_ResetTime": "Thu, 01 Jan 2025 00:00:09 GMT", "Retry_After": "4"}, 4),
    ],
)
def test_the_servers_wish_is_our_wait(server, gitlab, seen, headers, wait_s):
    server.script = [answer(429, **headers), answer(503, **headers), answer(204)]
    assert ask(gitlab) == NoJob(last_update=None, retriable_seen=True)
    assert seen.waits == [wait_s, wait_s]


def test_more_patience_than_a_call_has_is_the_callers(server, gitlab, seen):
    server.script = [answer(429, Retry_After="3600")]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert (found.retry_after_s, found.retriable_seen, len(server.asked), seen.waits) == (3600, True, 1, [])


def test_a_broken_connection_is_not_tried_again(server, gitlab, seen):
    server.script = [lambda sock, asked: reset(sock)]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert (found.status, found.retriable_seen, len(server.asked), seen.waits) == (-1, False, 1, [])
    assert seen.observed[0]["status"] == -1


def test_a_connection_that_breaks_after_a_not_now_still_tells_of_it(server, gitlab):
    server.script = [answer(503), lambda sock, asked: reset(sock)]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert (found.status, found.retriable_seen, len(server.asked)) == (-1, True, 2)


def test_a_stop_ends_the_wait_at_once(server, client_of):
    gitlab = client_of(server.url, pause=_pause)
    server.script = [answer(503, Retry_After="50")]
    with Cancel() as cancel:
        results = []
        thread = threading.Thread(target=lambda: results.append(patch(gitlab, cancel=cancel)))
        thread.start()
        until(lambda: server.asked)
        started = time.monotonic()
        cancel.set()
        thread.join(10)
        assert time.monotonic() - started < 2
    assert results[0].outcome is PatchOutcome.FAILED
    assert len(server.asked) == 1


def test_without_a_stop_sign_the_wait_is_real(server, client_of):
    gitlab = client_of(server.url, pause=_pause)
    server.script = [answer(503), answer(202)]
    started = time.monotonic()
    assert patch(gitlab).outcome is PatchOutcome.ADVANCED
    assert time.monotonic() - started >= 0.1


def test_the_runner_is_named_to_whoever_counts(server, gitlab, seen):
    ask(gitlab, runner="abc")
    assert seen.observed[0]["runner"] == "abc"
    assert seen.observed[0]["endpoint"] == "request_job"
