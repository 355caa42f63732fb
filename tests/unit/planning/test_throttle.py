"""The bucket in front of creation fills with time, never beyond its size."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.model.policy import Throttle
from fleet.planning.throttle import next_token_at, refill, whole
from tests.unit.planning.rows import MINUTE, NOW

SECOND = timedelta(seconds=1)
SLOW = Throttle(per_s=0.5, burst=4)


@pytest.mark.parametrize("unlimited", [Throttle(per_s=0, burst=4), Throttle(per_s=-1, burst=4), Throttle(burst=0)])
def test_no_rate_or_no_size_is_no_limit(unlimited):
    assert refill(unlimited, 0.0, NOW, NOW) is None


def test_a_bucket_never_seen_is_full():
    assert refill(SLOW, None, NOW, NOW) == 4


def test_it_fills_at_its_rate_up_to_its_size():
    assert refill(SLOW, 1.0, NOW, NOW + 3 * SECOND) == 2.5
    assert refill(SLOW, 1.0, NOW, NOW + MINUTE) == 4


def test_a_clock_that_went_back_takes_nothing():
    assert refill(SLOW, 1.0, NOW, NOW - MINUTE) == 1


def test_a_smaller_size_after_a_reload_cuts_what_is_there():
    assert refill(Throttle(per_s=1, burst=2), 9.0, NOW, NOW) == 2


@pytest.mark.parametrize(("tokens", "machines"), [(0.0, 0), (0.99, 0), (1.0, 1), (2.7, 2), (-1.5, 0)])
def test_only_whole_tokens_pay(tokens, machines):
    assert whole(tokens) == machines


def test_the_dust_of_ten_small_refills_is_swept_up():
    tokens = 0.0
    for second in range(10):
        tokens = refill(Throttle(per_s=0.1, burst=5), tokens, NOW + second * SECOND, NOW + (second + 1) * SECOND)
    assert tokens < 1
    assert whole(tokens) == 1


def test_the_next_token_comes_when_the_fraction_is_full():
    assert next_token_at(SLOW, 0.5, NOW) == NOW + SECOND
    assert next_token_at(SLOW, 2.0, NOW) == NOW + 2 * SECOND
    assert next_token_at(Throttle(per_s=0), 0.0, NOW) == NOW


@given(st.floats(0, 10), st.floats(0.01, 50), st.integers(0, 3600), st.integers(0, 3600))
def test_filling_in_two_steps_is_filling_in_one(tokens, per_s, first, second):
    bucket = Throttle(per_s=per_s, burst=10)
    middle, end = NOW + first * SECOND, NOW + (first + second) * SECOND
    once = refill(bucket, tokens, NOW, end)
    assert refill(bucket, refill(bucket, tokens, NOW, middle), middle, end) == pytest.approx(once)
