"""When a request is sent again, and after how long."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.gitlab.retry import is_not_now, wait_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
IN_7_S = "Thu, 01 Jan 2026 12:00:07 GMT"
PAST = "Thu, 01 Jan 2026 11:59:07 GMT"


def wait(headers, attempt=1):
    return wait_s(
        {key.lower(): value for key, value in headers.items()}, attempt=attempt, now=NOW, chance=random.Random(1)
    )


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 512, 599])
def test_these_say_not_now(status):
    assert is_not_now(status)


@pytest.mark.parametrize("status", [-1, -2, -100, 200, 204, 301, 400, 401, 403, 404, 409, 412, 416, 422, 501, 505, 511])
def test_these_are_final(status):
    assert not is_not_now(status)


def test_the_reset_time_beats_retry_after():
    assert wait({"RateLimit-ResetTime": IN_7_S, "Retry-After": "3"}) == 7


def test_a_reset_time_in_the_past_leaves_it_to_retry_after():
    assert wait({"RateLimit-ResetTime": PAST, "Retry-After": "3"}) == 3


@pytest.mark.parametrize("bad", ["soon", "", "12:00:07", "Thu, 99 Foo 2026 12:00:07 GMT"])
def test_an_unreadable_reset_time_leaves_it_to_retry_after(bad):
    assert wait({"RateLimit-ResetTime": bad, "Retry-After": "3"}) == 3


def test_the_reset_time_is_told_by_the_servers_own_clock():
    headers = {"RateLimit-ResetTime": "Thu, 01 Jan 2026 09:00:05 GMT", "Date": "Thu, 01 Jan 2026 09:00:00 GMT"}
    assert wait(headers) == 5


@pytest.mark.parametrize("bad", ["", "0", "-5", "1.5", "Thu, 01 Jan 2026 12:00:07 GMT", "²"])
def test_retry_after_is_whole_seconds_or_nothing(bad):
    assert 0.1 <= wait({"Retry-After": bad}) <= 0.2


@given(attempt=st.integers(1, 40), seed=st.integers())
def test_our_own_back_off_grows_from_a_tenth_of_a_second_to_a_minute(attempt, seed):
    found = wait_s({}, attempt=attempt, now=NOW, chance=random.Random(seed))
    assert 0.1 <= found <= min(60.0, 0.1 * 2**attempt) + 1e-9
