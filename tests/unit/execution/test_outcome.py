from __future__ import annotations

from typing import Any

import pytest

from fleet.execution.features import CONTAINERS, features_of
from fleet.execution.outcome import outcome_of
from fleet.gitlab.info import FEATURES
from fleet.model.job import Outcome


def result(outcome: str, reason: str | None = None, code: int = 0, message: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason, "exit_code": code, "message": message, "stage": "step_script"}


def test_a_success_is_a_success_even_when_the_cancel_came_too_late() -> None:
    assert outcome_of(result=result("success")) == Outcome(state="success")
    assert outcome_of(result=result("success"), stop="cancel", stop_reason="by a person") == Outcome(state="success")


def test_a_failing_script_is_its_authors_with_its_exit_code() -> None:
    found = outcome_of(result=result("failed", "script_failure", 42))
    assert found == Outcome(state="failed", failure_reason="script_failure", exit_code=42, message="exit code 42")
    assert outcome_of(result=result("failed", None, 1)).failure_reason == "script_failure"


def test_a_time_out_is_told_from_a_cancel_and_from_a_lost_machine() -> None:
    timed_out = outcome_of(result=result("failed", "job_execution_timeout", 143, "execution took longer than 1h0m0s"))
    assert (timed_out.failure_reason, timed_out.message) == (
        "job_execution_timeout", "execution took longer than 1h0m0s",
    )  # fmt: skip
    canceled = outcome_of(result=result("canceled", "job_canceled", 143), stop="cancel", stop_reason="canceling")
    assert canceled == Outcome(state="failed", failure_reason="job_canceled", message="canceled")
    lost = outcome_of(result=result("lost", None, 0, "the machine i-1 was lost"))
    assert lost == Outcome(state="failed", failure_reason="runner_system_failure", message="the machine i-1 was lost")


def test_a_lost_machine_is_ours_even_after_a_cancel() -> None:
    assert outcome_of(result=result("lost"), stop="cancel").failure_reason == "runner_system_failure"


def test_an_abort_is_gitlabs_or_the_managers() -> None:
    taken = outcome_of(result=result("aborted", "abort"), stop="abort", stop_reason="GitLab took job 7 away")
    assert (taken.failure_reason, taken.message) == ("job_canceled", "GitLab took job 7 away")
    stopped = outcome_of(result=result("aborted", "runner_interrupted"), stop="abort", stop_reason="SIGTERM")
    assert stopped.failure_reason == "runner_interrupted"
    assert outcome_of(result=result("aborted")).failure_reason == "runner_interrupted"


@pytest.mark.parametrize("broken", [{}, {"outcome": "?"}, {"outcome": None, "reason": 3, "exit_code": "x"}])
def test_a_result_nobody_can_read_is_ours(broken: dict[str, Any]) -> None:
    found = outcome_of(result=broken)
    assert (found.state, found.failure_reason, found.exit_code) == ("failed", "runner_system_failure", 0)
    assert found.message


@pytest.mark.parametrize(("code", "sent"), [(255, 255), (3221225786, -1073741510), (-1, -1), (1 << 40, 0), ("7", 0)])
def test_exit_codes_have_32_bits(code: Any, sent: int) -> None:
    assert outcome_of(result=result("failed", "script_failure", code)).exit_code == sent


def test_unknown_reasons_of_a_failure_are_the_scripts() -> None:
    assert outcome_of(result=result("failed", "solar_flare", 1)).failure_reason == "script_failure"


def test_only_what_works_is_advertised_in_gitlabs_words() -> None:
    for executor in ("instance", "shell", "ssh"):
        assert features_of(executor) <= set(FEATURES)
        assert {"refspecs", "masking", "cancel_gracefully", "return_exit_code", "shared"} <= features_of(executor)
        assert features_of(executor) >= {"artifacts", "artifacts_exclude", "upload_multiple_artifacts"}
        assert features_of(executor) >= {"cache", "fallback_cache_keys"}
        assert not features_of(executor) & {"services", "image"}
    for executor in ("docker", "docker-autoscaler", "docker-ssh"):
        assert features_of(executor) == features_of("instance") | CONTAINERS
        assert set(FEATURES) >= CONTAINERS
    assert features_of("kubernetes") == frozenset()
