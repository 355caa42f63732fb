"""A scope that failed is left alone for longer each time, and forgiven."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleet.planning.cooling import back_off, cooled
from fleet.planning.planner import plan
from tests.unit.planning.rows import HOUR, MINUTE, NOW, busy, cool, created, job, pool, sites

SECOND = timedelta(seconds=1)


def failed(before=None, now=NOW, retry_after_s=None):
    return cooled(scope="zone:a", before=before, now=now, reason="no machines there", retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 30), (2, 60), (3, 120), (4, 240), (6, 960), (7, 1800), (8, 1800), (5000, 1800)]
)
def test_the_back_off_doubles_from_half_a_minute_to_half_an_hour(failures, seconds):
    assert back_off(failures) == timedelta(seconds=seconds)


def test_the_first_failure_cools_for_half_a_minute():
    first = failed()
    assert (first.until, first.failures, first.scope) == (NOW + 30 * SECOND, 1, "zone:a")
    assert first.reason == "no machines there"


def test_a_failure_after_the_cool_down_counts_on():
    second = failed(failed(), now=NOW + 31 * SECOND)
    assert (second.until, second.failures) == (NOW + 91 * SECOND, 2)


def test_failures_of_requests_that_were_in_the_air_together_count_once():
    echo = failed(failed(), now=NOW + 2 * SECOND)
    assert (echo.until, echo.failures) == (NOW + 30 * SECOND, 1)


def test_the_provider_may_ask_for_more_time_but_not_for_less():
    assert failed(retry_after_s=600).until == NOW + 10 * MINUTE
    assert failed(retry_after_s=1).until == NOW + 30 * SECOND
    assert failed(retry_after_s=-5).until == NOW + 30 * SECOND
    assert failed(failed(), now=NOW + SECOND, retry_after_s=600).until == NOW + 10 * MINUTE + SECOND


def test_what_was_long_ago_is_forgotten():
    old = replace(failed(), failures=6)
    assert failed(old, now=old.until + HOUR).failures == 7
    assert failed(old, now=old.until + HOUR + SECOND).failures == 1


def test_throttling_cools_the_api_and_blames_no_placement():
    made = plan(pool(waiting=[job(1)], placements=sites("a"), cool_downs=[cool("api:aws/1")]))
    assert created(made) == 1


def test_a_scope_stops_every_placement_that_lists_it_and_no_other():
    snapshot = pool(busy("i-1"), waiting=[job(1)], placements=sites("a", "b"), cool_downs=[cool("zone:a")])
    assert [create.placement for create in plan(snapshot).creates] == ["b"]
    both = replace(snapshot, cool_downs=(cool("zone:a"), cool("zone:b")))
    assert not plan(both).creates
    assert created(plan(replace(both, now=NOW + HOUR))) == 1


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (4, 40), (5, 60), (5000, 60)])
def test_an_api_is_asked_again_soon(failures, seconds):
    assert back_off(failures, "api:aws/1") == timedelta(seconds=seconds)
    assert cooled(scope="api:aws/1", before=None, now=NOW, reason="503").until == NOW + 5 * SECOND
