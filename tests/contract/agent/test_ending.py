"""Time-outs, cancel and abort end what they should, and no more."""

from __future__ import annotations

import time

import pytest

from .conftest import stage

STUBBORN = "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done"
TAIL = (
    ("after_script", "after_script", "success"),
    ("archive_cache", "archive_cache", "always"),
    ("upload", "upload_artifacts", "failure"),
    ("cleanup", "cleanup", "success"),
)


def job_with_tail(machine, script: str, **fields):
    """One step, then a stage of each later kind that says its name and the job's status."""
    job = machine.job(script, **fields)
    job["stages"] += [stage(name, kind, f"echo {name} $CI_JOB_STATUS", on=on) for name, kind, on in TAIL]
    return job


def started(machine, job, **fields):
    """The job runs its step; the channel and the lease."""
    channel = machine.connect()
    lease = machine.start(channel, job, **fields)
    channel.expect(lambda head: head["type"] == "data")
    return channel, lease


def said(channel, lease: str) -> list[str]:
    """What the job printed, without the shell's own notes."""
    lines = channel.log(lease).decode().splitlines()
    return [line for line in lines if "Terminated" not in line and "Killed" not in line]


def test_the_job_s_time_ends_the_script_and_leaves_only_cleanup(machine) -> None:
    channel, lease = started(machine, job_with_tail(machine, "echo up; sleep 60", timeout_s=3600), remaining_s=0.5)
    result = channel.exit_of(lease)["result"]
    assert (result["outcome"], result["reason"]) == ("failed", "job_execution_timeout")
    assert result["message"] == "execution took longer than 1h0m0s seconds"
    assert said(channel, lease) == ["up", "cleanup timedout"]


def test_a_job_without_time_left_runs_nothing_but_cleanup(machine) -> None:
    result, log = machine.run(job_with_tail(machine, "echo up"), remaining_s=0)
    assert (result["reason"], log) == ("job_execution_timeout", "cleanup timedout\n")


def test_the_script_s_time_covers_all_steps_and_leaves_the_later_stages(machine) -> None:
    job = job_with_tail(machine, "echo up; sleep 0.3", script_timeout_s=0.6)
    job["stages"].insert(1, stage("step_2", "step", "sleep 60"))
    channel, lease = started(machine, job)
    result = channel.exit_of(lease)["result"]
    assert (result["reason"], result["stage"]) == ("job_execution_timeout", "step_2")
    assert said(channel, lease) == [
        "up",
        "after_script timedout",
        "archive_cache timedout",
        "upload timedout",
        "cleanup timedout",
    ]


def test_get_sources_that_takes_too_long_ends_the_job(machine) -> None:
    job = job_with_tail(machine, "echo never")
    job["stages"].insert(0, stage("get_sources", "get_sources", "echo up; sleep 60", timeout_s=0.3, attempts=3))
    channel, lease = started(machine, job)
    result = channel.exit_of(lease)["result"]
    assert (result["reason"], result["message"]) == ("job_execution_timeout", "get_sources took longer than 0.3s")
    assert said(channel, lease) == ["up", "cleanup timedout"]


def test_after_script_has_a_limit_of_its_own_and_its_failure_is_ignored_when_asked(machine) -> None:
    job = machine.job("echo up")
    job["stages"].append(stage("after", "after_script", "sleep 60", timeout_s=0.2, ignore_errors=True))
    result, log = machine.run(job)
    assert result["outcome"] == "success"
    assert "after took longer than 0.2s" in log


def test_a_script_that_ignores_sigterm_is_killed_after_the_grace(machine) -> None:
    channel, lease = started(machine, job_with_tail(machine, STUBBORN), remaining_s=0.4)
    assert channel.exit_of(lease)["result"]["reason"] == "job_execution_timeout"
    assert "told" in said(channel, lease)


def test_a_cancel_ends_the_script_and_leaves_the_later_stages(machine) -> None:
    channel, lease = started(machine, job_with_tail(machine, STUBBORN))
    assert channel.ask("cancel", lease=lease, epoch=1)["ok"]
    result = channel.exit_of(lease)["result"]
    assert (result["outcome"], result["stage"]) == ("canceled", "step_1")
    lines = said(channel, lease)
    assert lines[:2] == ["up", "told"]
    assert lines[-4:] == ["after_script canceled", "archive_cache canceled", "upload canceled", "cleanup canceled"]


def test_a_cancel_before_the_script_leaves_only_cleanup(machine) -> None:
    job = job_with_tail(machine, "echo never")
    job["stages"].insert(0, stage("get_sources", "get_sources", "echo up; sleep 60", attempts=3))
    channel, lease = started(machine, job)
    assert channel.ask("cancel", lease=lease, epoch=1)["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "canceled"
    assert said(channel, lease) == ["up", "cleanup canceled"]


def test_a_cancel_after_the_script_changes_nothing(machine) -> None:
    job = machine.job("true")
    job["stages"].append(stage("after", "after_script", "echo up; sleep 0.3; echo done"))
    channel, lease = started(machine, job)
    assert channel.ask("cancel", lease=lease, epoch=1)["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "success"
    assert said(channel, lease) == ["up", "done"]


@pytest.mark.parametrize("first", ["get_sources", "step", "after_script", "upload_artifacts"])
def test_an_abort_ends_any_stage_and_leaves_only_cleanup(machine, first: str) -> None:
    job = job_with_tail(machine, "echo never")
    job["stages"].insert(0, stage("first", first, "echo up; sleep 60"))
    job["cleanup_paths"] = [str(machine.home / "file")]
    job["files"] = [{"path": str(machine.home / "file"), "mode": 0o600, "text": ""}]
    channel, lease = started(machine, job)
    assert channel.ask("abort", lease=lease, epoch=1, reason="job_canceled")["ok"]
    result = channel.exit_of(lease)["result"]
    assert (result["outcome"], result["reason"]) == ("aborted", "job_canceled")
    assert [line.split()[0] for line in said(channel, lease)] == ["up", "cleanup"]
    assert not (machine.home / "file").exists()


def test_an_abort_does_not_wait_for_a_cancel(machine) -> None:
    channel, lease = started(machine, job_with_tail(machine, STUBBORN, abort_grace_s=0.5))
    assert channel.ask("cancel", lease=lease, epoch=1)["ok"]
    assert channel.ask("abort", lease=lease, epoch=1, reason="gone")["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "aborted"


def test_the_wait_between_two_attempts_can_be_cut_short(machine) -> None:
    job = machine.job("echo never")
    job["stages"].insert(0, stage("get_sources", "get_sources", "echo up; exit 1", attempts=3, retry_delay_s=60))
    channel, lease = started(machine, job)
    begun = time.monotonic()
    assert channel.ask("abort", lease=lease, epoch=1, reason="gone")["ok"]
    channel.exit_of(lease)
    assert time.monotonic() - begun < 30


def test_a_cleanup_that_hangs_is_ended(machine) -> None:
    job = machine.job("true")
    job["stages"].append(stage("cleanup", "cleanup", "sleep 60", timeout_s=0.3))
    assert machine.run(job)[0]["outcome"] == "success"
