"""Policies hold in the minutes that their cron expressions match, on the wall clock of their zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.model.policy import Policy
from fleet.planning.periods import HORIZON, check, holds, in_force, next_change
from tests.unit.planning.rows import MINUTE, NOW

HOURS = timedelta(hours=1)
BERLIN = "Europe/Berlin"
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def at(text):
    return datetime.fromisoformat(text).astimezone(UTC)


def policy(*periods, zone="UTC"):
    return Policy(periods=periods or ("* * * * *",), timezone=zone)


def test_a_minute_is_inside_from_its_first_to_its_last_microsecond():
    noon = policy("0 12 * * *")
    assert holds(noon, at("2026-03-02T12:00:00+00:00"))
    assert holds(noon, at("2026-03-02T12:00:59.999999+00:00"))
    assert not holds(noon, at("2026-03-02T12:01:00+00:00"))
    assert not holds(noon, at("2026-03-02T11:59:59.999999+00:00"))


def test_a_cron_expression_is_a_range_and_not_an_instant():
    office = policy("* 9-16 * * *")
    assert [hour for hour in range(24) if holds(office, MONDAY + hour * HOURS)] == list(range(9, 17))


def test_a_minute_that_matches_any_period_is_inside():
    both = policy("* 8 * * *", "30-59 10 * * *")
    inside = [text for text in ("08:15", "09:15", "10:15", "10:45") if holds(both, at(f"2026-03-02T{text}:00+00:00"))]
    assert inside == ["08:15", "10:45"]


def test_a_policy_without_periods_never_holds():
    assert not holds(Policy(periods=()), NOW)


@pytest.mark.parametrize(
    ("days", "inside"),
    [
        ("0", {6}),
        ("7", {6}),
        ("sun", {6}),
        ("1-5", {0, 1, 2, 3, 4}),
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("MON-Fri", {0, 1, 2, 3, 4}),
        ("6,0", {5, 6}),
        ("6-7", {5, 6}),
        ("5-7", {4, 5, 6}),
        ("0-2", {6, 0, 1}),
        ("sat,sun", {5, 6}),
    ],
)
def test_sunday_is_0_and_7_and_days_have_names(days, inside):
    each = policy(f"* * * * {days}")
    assert {day for day in range(7) if holds(each, MONDAY + timedelta(days=day))} == inside


def test_day_of_month_and_day_of_week_are_either_or_when_both_are_given():
    either = policy("* * 13 * fri")
    assert holds(either, at("2026-03-13T00:00:00+00:00")), "Friday the 13th"
    assert holds(either, at("2026-03-06T00:00:00+00:00")), "a Friday"
    assert holds(either, at("2026-05-13T00:00:00+00:00")), "a 13th"
    assert not holds(either, at("2026-03-12T00:00:00+00:00"))


def test_months_have_names_and_steps_count():
    spring = policy("*/15 * * mar-may *")
    assert holds(spring, at("2026-04-01T10:45:00+00:00"))
    assert not holds(spring, at("2026-04-01T10:46:00+00:00"))
    assert not holds(spring, at("2026-06-01T10:45:00+00:00"))


def test_the_zone_is_the_policys_own():
    office = policy("* 9-16 * * mon-fri", zone="Asia/Kolkata")
    assert not holds(office, at("2026-03-02T03:29:00+00:00"))
    assert holds(office, at("2026-03-02T03:30:00+00:00")), "half past three in London is nine in Kolkata"


def test_on_the_day_clocks_go_forward_the_skipped_minutes_are_never_inside():
    skipped = policy("30-59 2 * * *", zone=BERLIN)
    night = at("2026-03-29T00:00:00+00:00")  # clocks jump from 2 to 3 at 01:00Z
    assert not any(holds(skipped, night + n * MINUTE) for n in range(24 * 60))
    working = policy("* 9-16 * * *", zone=BERLIN)
    assert sum(holds(working, night + n * MINUTE) for n in range(22 * 60)) == 8 * 60, "the day's range is whole"


def test_on_the_day_clocks_go_back_the_repeated_minutes_are_inside_twice():
    repeated = policy("30-59 2 * * *", zone=BERLIN)
    night = at("2026-10-25T00:00:00+00:00")  # clocks go from 3 back to 2 at 01:00Z
    inside = [n for n in range(24 * 60) if holds(repeated, night + n * MINUTE)]
    assert inside == [*range(30, 60), *range(90, 120)]


def test_a_daily_hour_exists_once_on_both_days_clocks_change():
    hour = policy("* 3 * * *", zone=BERLIN)
    for day in ("2026-03-29", "2026-10-25"):
        night = at(f"{day}T00:00:00+00:00") - 2 * HOURS
        assert sum(holds(hour, night + n * MINUTE) for n in range(20 * 60)) == 60


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("* * * *", "must have five fields"),
        ("* * * * * *", "must have five fields"),
        ("@daily", "must have five fields"),
        ("60 * * * *", "Bad minute"),
        ("* 24 * * *", "Bad hour"),
        ("* * * * 8", "Bad day-of-week"),
        ("* * * * fri-mon", "Bad day-of-week"),
        ("* * 30 2 *", "Bad day-of-month"),
        ("* nine * * *", "Bad hour"),
    ],
)
def test_an_invalid_expression_says_what_is_wrong_with_it(expression, said):
    with pytest.raises(ValueError, match=said) as caught:
        check(policy(expression))
    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_an_unknown_zone_says_so(zone):
    with pytest.raises(ValueError, match="is not an IANA name") as caught:
        check(policy(zone=zone))
    assert repr(zone) in str(caught.value)


def test_a_right_policy_passes_the_check():
    check(policy("* 9-17 * * mon-fri", "0 0 l * *", zone=BERLIN))


def test_the_last_matching_policy_is_in_force_and_none_when_none_matches():
    three = (policy("* 0-11 * * *"), policy("* 6-8 * * *"), policy("* 8-9 * * *"))
    found = {hour: in_force(three, MONDAY + hour * HOURS) for hour in (3, 6, 8, 9, 10, 12)}
    assert found == {3: 0, 6: 1, 8: 2, 9: 2, 10: 0, 12: None}
    assert in_force((), NOW) is None


def test_the_next_change_is_the_minute_another_policy_comes_into_force():
    day = (policy(), policy("30-59 9 * * mon-fri"))
    assert next_change(day, at("2026-03-02T08:00:30+00:00")) == at("2026-03-02T09:30:00+00:00")
    assert next_change(day, at("2026-03-02T09:30:00+00:00")) == at("2026-03-02T10:00:00+00:00")
    assert next_change(day, at("2026-03-06T10:00:00+00:00")) == at("2026-03-09T09:30:00+00:00")


def test_a_period_that_ends_with_the_hour_ends_there():
    assert next_change((policy("30-59 9 * * *"),), at("2026-03-02T09:40:00+00:00")) == at("2026-03-02T10:00:00+00:00")


def test_a_change_hidden_by_a_later_policy_is_none():
    assert next_change((policy("* 9 * * *"), policy()), NOW) is None
    assert next_change((policy("* 9 * * *"), policy("* 0-11 * * *", "* 12-23 * * *")), NOW) is None


def test_what_changes_beyond_the_horizon_is_not_looked_for():
    yearly = (policy("* * 24 12 *"),)
    assert next_change(yearly, NOW) is None
    eve = at("2026-12-24T00:00:00+00:00")
    assert next_change(yearly, eve - HORIZON + MINUTE) == eve
    assert next_change((), NOW) is None
    assert next_change((Policy(periods=()),), NOW) is None


def test_a_change_on_the_day_clocks_change_is_found_at_its_real_minute():
    late = (policy("* 3-23 * * *", zone=BERLIN),)
    assert next_change(late, at("2026-03-28T23:30:00+00:00")) == at("2026-03-29T01:00:00+00:00")
    assert next_change(late, at("2026-10-24T23:30:00+00:00")) == at("2026-10-25T02:00:00+00:00")
    half = (policy("* 2-23 * * *", zone="Australia/Lord_Howe"),)  # clocks go by half an hour there
    assert next_change(half, at("2026-04-04T14:40:00+00:00")) == at("2026-04-04T15:30:00+00:00")


_fields = st.tuples(
    st.sampled_from(["*", "0", "30-59", "*/20", "5,10"]),
    st.sampled_from(["*", "9-16", "0", "22-23", "2,3"]),
    st.sampled_from(["*", "*", "1", "29"]),
    st.just("*"),
    st.sampled_from(["*", "mon-fri", "7", "sat"]),
).map(" ".join)
_policies = st.lists(
    st.builds(
        Policy,
        periods=st.lists(_fields, max_size=2).map(tuple),
        timezone=st.sampled_from(["UTC", BERLIN, "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]),
    ),
    max_size=3,
).map(tuple)


@given(_policies, st.integers(0, 366 * 24 * 60))
def test_the_next_change_is_what_a_search_minute_by_minute_finds(policies, offset):
    start = MONDAY + offset * MINUTE
    today = in_force(policies, start)
    bound = 12 * 60
    walked = next((n for n in range(1, bound) if in_force(policies, start + n * MINUTE) != today), None)
    found = next_change(policies, start + timedelta(seconds=17))
    if walked is not None:
        assert found == start + walked * MINUTE
    else:
        assert found is None or found >= start + bound * MINUTE
