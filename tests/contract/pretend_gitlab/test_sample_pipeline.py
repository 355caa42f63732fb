"""The sample pipeline, run by the simplest runner there is."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from fleet.demo.logview import output_lines, plain_trace
from fleet.demo.payload import make_job
from fleet.demo.pipeline import SAMPLE, ProgressKind, SampleJob, run_pipeline
from tests.contract.pretend_gitlab.raw_runner import RawJob

TRACE = (
    b"2026-01-02T03:04:05.000001Z 00O section_start:1700000000:step_script\r\x1b[0K\x1b[0K\x1b[36;1mStep\x1b[0;m\n"
    b"2026-01-02T03:04:05.000002Z 01O hel\n"
    b"2026-01-02T03:04:05.000003Z 01O+lo\n"
    b"2026-01-02T03:04:05.000004Z 01E bad \xff byte\n"
    b"no stamp\n"
)


def test_a_trace_reads_as_text():
    assert plain_trace(TRACE) == "Step\nhello\nbad \N{REPLACEMENT CHARACTER} byte\nno stamp\n"
    assert output_lines(TRACE) == ["Step", "hello", "bad \N{REPLACEMENT CHARACTER} byte", "no stamp"]


@pytest.fixture
def shell_runner(gitlab, runner):
    """Takes jobs and runs their script with sh, one after the other."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            answer = runner.poll()
            if answer.status_code != 201:
                over.wait(0.05)
                continue
            run_one(answer.json())

    def run_one(payload) -> None:
        job = RawJob(runner.client, payload)
        job.acknowledge()
        values = {item["key"]: item["value"] for item in payload["variables"]}
        script = "\n".join(payload["steps"][0]["script"]).replace("sleep", ":")
        done = subprocess.run(
            ["sh", "-ec", script], env={**values, "PATH": os.environ["PATH"]}, capture_output=True, check=False
        )
        job.patch(done.stdout or b"-\n")
        if done.returncode:
            job.finish("failed", failure_reason="script_failure", exit_code=done.returncode)
        else:
            job.finish()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("shell_runner")
def test_the_sample_runs_stage_after_stage_to_a_good_end(gitlab):
    told = list(run_pipeline(gitlab, timeout_s=60))
    stages = [each.stage for each in told if each.kind is ProgressKind.STAGE_BEGAN]
    assert stages == ["build", "test", "package", "deploy"]
    ended = {each.job_name: each.text for each in told if each.kind is ProgressKind.JOB_ENDED}
    assert ended.keys() == {job.name for job in SAMPLE}
    assert ended["style check"] == "failed (script_failure, exit code 3), allowed"
    assert ended["deploy"] == "passed"
    lines = [each.text for each in told if each.kind is ProgressKind.JOB_OUTPUT and each.job_name == "compile"]
    assert lines[:3] == ["compiling lexer", "compiling parser", "compiling linker"]
    assert (told[-1].kind, told[-1].text, told[-1].is_good) == (ProgressKind.PIPELINE_ENDED, "passed", True)
    assert gitlab.violations() == []


@pytest.mark.usefixtures("shell_runner")
def test_a_failed_stage_ends_the_pipeline(gitlab):
    sample = (
        SampleJob(name="breaks", stage="one", script=["exit 1"]),
        SampleJob(name="never", stage="two", script=["true"]),
    )
    told = list(run_pipeline(gitlab, sample=sample, timeout_s=60))
    assert (told[-1].text, told[-1].is_good) == ("failed", False)
    assert "never" not in [each.job_name for each in told]


def test_a_pipeline_that_nobody_runs_says_what_has_not_ended(gitlab):
    with pytest.raises(TimeoutError, match="compile"):
        list(run_pipeline(gitlab, timeout_s=0.1))


def test_a_job_is_made_with_everything_that_gitlab_sends():
    payload = make_job()
    wanted = {
        "id",
        "token",
        "job_info",
        "git_info",
        "runner_info",
        "variables",
        "steps",
        "image",
        "services",
        "features",
    }
    assert wanted <= payload.keys()
    assert make_job(steps=[], timeout=0)["steps"] == []
