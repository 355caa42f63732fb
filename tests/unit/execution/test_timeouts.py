from __future__ import annotations

import pytest

from fleet.execution.timeouts import attempts, parse_duration_s, script_timeouts, within_job


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), (".5s", 0.5), ("2m3.5s", 123.5), ("100ms", 0.1), ("1us", 1e-6),
        ("1\u00b5s", 1e-6), ("1ns", 1e-9), ("0", 0), ("+5s", 5), ("-5s", -5), ("0s", 0), ("5.s", 5),
    ],
)  # fmt: skip
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "90", "s", "1 h", "1h 30m", "five", "1d", "1h30", "--5s", ".s", "٣s"])
def test_other_texts_are_no_durations(text: str) -> None:
    assert parse_duration_s(text) is None


def test_nothing_said_leaves_the_script_unlimited_and_after_script_five_minutes() -> None:
    found = script_timeouts(script="", after_script="", job_s=3600)
    assert (found.script_s, found.after_script_s, found.warnings) == (None, 300, ())


def test_limits_are_taken_as_said() -> None:
    found = script_timeouts(script="10m", after_script="90s", job_s=3600)
    assert (found.script_s, found.after_script_s, found.warnings) == (600, 90, ())


@pytest.mark.parametrize("text", ["soon", "-10m"])
def test_a_limit_nobody_can_read_is_warned_about_and_ignored(text: str) -> None:
    found = script_timeouts(script=text, after_script=text, job_s=3600)
    assert (found.script_s, found.after_script_s) == (None, 300)
    assert [warning.split()[0] for warning in found.warnings] == [
        "RUNNER_SCRIPT_TIMEOUT", "RUNNER_AFTER_SCRIPT_TIMEOUT",
    ]  # fmt: skip


def test_zero_is_the_default_without_a_warning() -> None:
    found = script_timeouts(script="0s", after_script="0", job_s=3600)
    assert (found.script_s, found.after_script_s, found.warnings) == (None, 300, ())


def test_a_limit_beyond_the_jobs_own_is_the_jobs_own() -> None:
    found = script_timeouts(script="2h", after_script="2h", job_s=3600)
    assert (found.script_s, found.after_script_s) == (3600, 3600)
    assert len(found.warnings) == 2
    assert script_timeouts(script="", after_script="", job_s=60).after_script_s == 60


@pytest.mark.parametrize(("limit", "result"), [(None, None), (0, None), (-1, None), (30, 30), (100, None), (500, None)])
def test_a_setting_binds_only_within_the_job(limit: float | None, result: float | None) -> None:
    assert within_job(limit, 100) == result


@pytest.mark.parametrize(
    ("text", "times"),
    [("", 1), ("3", 3), ("0", 1), ("-2", 1), ("11", 10), ("9" * 5000, 10), ("x", 1), (" 2 ", 2), ("1.5", 1)],
)
def test_attempts_are_one_to_ten(text: str, times: int) -> None:
    assert attempts(text) == times
