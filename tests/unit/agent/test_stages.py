"""The stage matrix: what runs after what, and what the job comes to."""

from __future__ import annotations

import pytest

from fleet.agent import stages
from fleet.agent.stages import Ending, Progress, duration

KINDS = [
    "prepare",
    "get_sources",
    "restore_cache",
    "download_artifacts",
    "step",
    "after_script",
    "archive_cache",
    "upload_artifacts",
    "cleanup",
]
GOOD = Ending(stages.EXITED)
BAD = Ending(stages.EXITED, 7, "exit code 7")


def play(endings: dict[str, Ending], on: str = "success", **more) -> tuple[list[str], dict, Progress]:
    """Run all kinds in order; those named end as told, the others well."""
    progress, ran = Progress(), []
    for kind in KINDS:
        stage = {"name": kind, "kind": kind, "on": on, "exit_reason": "script_failure", **more}
        if progress.admits(stage):
            ran.append(kind)
            progress.record(stage, endings.get(kind, GOOD))
    return ran, stages.result(progress, ran[-1], None), progress


def test_a_job_that_goes_well_runs_everything() -> None:
    ran, result, _ = play({})
    assert ran == KINDS
    assert result == {"outcome": "success", "reason": None, "exit_code": 0, "message": "", "stage": "cleanup"}


def test_a_failed_prepare_ends_the_job_at_once() -> None:
    ran, result, _ = play({"prepare": BAD}, on="failure")
    assert ran == ["prepare", "cleanup"]
    assert (result["outcome"], result["stage"], result["exit_code"]) == ("failed", "prepare", 7)


@pytest.mark.parametrize("kind", ["get_sources", "restore_cache", "download_artifacts"])
def test_without_sources_neither_the_script_nor_after_script_runs_but_uploads_for_failure_do(kind: str) -> None:
    ran, result, _ = play({kind: BAD}, on="failure")
    assert ran == [*KINDS[: KINDS.index(kind) + 1], "archive_cache", "upload_artifacts", "cleanup"]
    assert result["reason"] == "script_failure"


def test_get_sources_that_takes_too_long_ends_the_job_at_once() -> None:
    ran, result, _ = play({"get_sources": Ending(stages.TIMED_OUT, 0, "too long")}, on="always")
    assert ran == ["prepare", "get_sources", "cleanup"]
    assert result["reason"] == "job_execution_timeout"


def test_after_a_failed_script_after_script_and_uploads_for_failure_run() -> None:
    ran, result, progress = play({"step": BAD}, on="failure")
    assert ran == KINDS
    assert (result["outcome"], result["exit_code"], result["message"]) == ("failed", 7, "exit code 7")
    assert progress.job_status("after_script") == "failed"


def test_uploads_for_success_do_not_run_after_a_failure_nor_those_for_failure_after_success() -> None:
    assert "upload_artifacts" not in play({"step": BAD}, on="success")[0]
    assert "upload_artifacts" not in play({}, on="failure")[0]


def test_a_failed_step_keeps_the_later_steps_from_running() -> None:
    progress = Progress()
    first = {"name": "step_script", "kind": "step"}
    assert progress.admits(first)
    progress.record(first, BAD)
    assert not progress.admits({"name": "step_release", "kind": "step"})


def test_a_failure_of_after_script_counts_only_when_it_is_not_ignored() -> None:
    assert play({"after_script": BAD}, ignore_errors=True)[1]["outcome"] == "success"
    assert play({"after_script": BAD}, ignore_errors=False)[1]["outcome"] == "failed"


def test_a_failed_cache_is_no_failure_and_a_failed_upload_is_one() -> None:
    assert play({"archive_cache": BAD})[1]["outcome"] == "success"
    assert play({"upload_artifacts": BAD})[1]["stage"] == "upload_artifacts"


def test_the_failure_of_the_steps_is_told_before_that_of_the_artifacts() -> None:
    _, result, _ = play({"step": BAD, "upload_artifacts": Ending(stages.EXITED, 1, "exit code 1")}, on="always")
    assert (result["stage"], result["exit_code"]) == ("step", 7)


def test_after_the_job_s_time_nothing_but_cleanup_runs() -> None:
    late = Ending(stages.JOB_TIMED_OUT, 0, "execution took longer than 1h0m0s seconds")
    ran, result, _ = play({"step": late}, on="always")
    assert ran[-2:] == ["step", "cleanup"]
    assert (result["reason"], result["message"]) == ("job_execution_timeout", late.message)


def test_the_job_s_time_may_end_in_a_stage_whose_failure_is_ignored() -> None:
    _, result, _ = play({"archive_cache": Ending(stages.JOB_TIMED_OUT, 0, "late")})
    assert result["reason"] == "job_execution_timeout"


def test_after_the_script_s_time_after_script_runs_and_is_told() -> None:
    ran, result, progress = play({"step": Ending(stages.SCRIPT_TIMED_OUT, 0, "late")}, on="failure")
    assert ran == KINDS
    assert result["reason"] == "job_execution_timeout"
    assert progress.job_status("after_script") == "timedout"


def test_a_cancel_of_the_script_leaves_after_script_and_uploads() -> None:
    ran, result, progress = play({"step": Ending(stages.CANCELED)}, on="always")
    assert ran == KINDS
    assert result["outcome"] == "canceled"
    assert progress.job_status("after_script") == "canceled"


def test_a_cancel_before_the_script_leaves_nothing_but_cleanup() -> None:
    ran, result, _ = play({"get_sources": Ending(stages.CANCELED)}, on="always")
    assert ran == ["prepare", "get_sources", "cleanup"]
    assert result["outcome"] == "canceled"


def test_an_abort_leaves_nothing_but_cleanup() -> None:
    ran, _, progress = play({"step": Ending(stages.ABORTED)}, on="always")
    assert ran[-2:] == ["step", "cleanup"]
    assert stages.result(progress, "step", "job_canceled")["outcome"] == "aborted"


def test_a_shell_that_does_not_start_is_no_fault_of_the_job() -> None:
    _, result, _ = play({"step": Ending(stages.FAILED_TO_START, 0, "bash: No such file")})
    assert result["reason"] == "runner_system_failure"


def test_before_and_in_the_script_the_job_is_running() -> None:
    progress = Progress()
    assert {progress.job_status(kind) for kind in ("prepare", "get_sources", "step")} == {"running"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (1.5, "1.5s"), (59, "59s"), (60, "1m0s"), (3600, "1h0m0s"), (5405.25, "1h30m5.25s"), (10, "10s")],
)
def test_durations_are_written_as_gitlab_runner_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
