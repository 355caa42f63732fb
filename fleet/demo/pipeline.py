"""The sample pipeline behind `fleetctl up --demo`: four stages of small shell jobs.

Rule: a stage is queued when the stage before has ended well, as GitLab does it; what happens is
yielded as `Progress`, and printing it is the caller's business. The scripts need `sh` alone.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Iterator, Sequence

from fleet.demo.controls import Controls
from fleet.demo.jobs import JobState, JobView
from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job

LOOK_EVERY_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleJob:
    """One job of a stage."""

    name: str
    stage: str
    script: Sequence[str]
    after_script: Sequence[str] | None = None
    allow_failure: bool = False


SAMPLE = (
    SampleJob(
        name="compile",
        stage="build",
        script=(
            'for part in lexer parser linker; do echo "compiling $part"; sleep 0.4; done',
            'echo "built $CI_PROJECT_NAME at $CI_COMMIT_SHORT_SHA"',
        ),
    ),
    SampleJob(
        name="unit tests",
        stage="test",
        script=('for n in 1 2 3 4 5; do echo "ok $n - unit test $n"; sleep 0.3; done',),
        after_script=('echo "the job was: $CI_JOB_STATUS"',),
    ),
    SampleJob(
        name="browser tests",
        stage="test",
        script=('for page in login search basket; do echo "ok - $page"; sleep 0.5; done',),
    ),
    SampleJob(
        name="style check",
        stage="test",
        script=('echo "line 12 is too long"', "exit 3"),
        allow_failure=True,
    ),
    SampleJob(
        name="package",
        stage="package",
        script=('echo "packing"', "sleep 0.5", 'echo "packed for $CI_COMMIT_REF_NAME"'),
    ),
    SampleJob(
        name="deploy",
        stage="deploy",
        script=('for host in one two; do echo "deploying to $host"; sleep 0.5; done', 'echo "done"'),
    ),
)


class ProgressKind(enum.StrEnum):
    """What there is to tell."""

    STAGE_BEGAN = "stage_began"
    JOB_QUEUED = "job_queued"
    JOB_BEGAN = "job_began"
    JOB_OUTPUT = "job_output"
    JOB_ENDED = "job_ended"
    PIPELINE_ENDED = "pipeline_ended"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One thing that happened; `text` is a line of output, or how it ended."""

    kind: ProgressKind
    stage: str = ""
    job_name: str = ""
    job_id: int | None = None
    text: str = ""
    elapsed_s: float = 0.0
    is_good: bool = True


@dataclasses.dataclass(slots=True, kw_only=True)
class _Watched:
    """A queued job and what has been told of it."""

    job_id: int
    sample: SampleJob
    began: bool = False
    ended: bool = False
    is_good: bool = True
    lines_told: int = 0


def run_pipeline(
    gitlab: Controls, *, runner_id: int | None = None, sample: Sequence[SampleJob] = SAMPLE, timeout_s: float = 300.0
) -> Iterator[Progress]:
    """Queue stage after stage and tell what happens; ends when the pipeline has, or in TimeoutError."""
    began = time.monotonic()
    is_good = True
    for stage in dict.fromkeys(job.stage for job in sample):
        yield Progress(kind=ProgressKind.STAGE_BEGAN, stage=stage)
        watched = [_queue(gitlab, job, runner_id) for job in sample if job.stage == stage]
        for each in watched:
            yield _told(each, ProgressKind.JOB_QUEUED)
        while not all(each.ended for each in watched):
            if time.monotonic() - began > timeout_s:
                unfinished = ", ".join(each.sample.name for each in watched if not each.ended)
                raise TimeoutError(f"after {timeout_s:g} s these jobs have not ended: {unfinished}")
            for each in watched:
                yield from _look(gitlab, each)
            time.sleep(LOOK_EVERY_S)
        is_good = all(each.is_good or each.sample.allow_failure for each in watched)
        if not is_good:
            break
    took = time.monotonic() - began
    yield Progress(
        kind=ProgressKind.PIPELINE_ENDED, text="passed" if is_good else "failed", elapsed_s=took, is_good=is_good
    )


def _queue(gitlab: Controls, job: SampleJob, runner_id: int | None) -> _Watched:
    payload = make_job(
        name=job.name,
        stage=job.stage,
        script=job.script,
        after_script=job.after_script,
        allow_failure=job.allow_failure,
        project="demo/sample",
    )
    return _Watched(job_id=gitlab.enqueue(payload, runner_id=runner_id), sample=job)


def _look(gitlab: Controls, watched: _Watched) -> Iterator[Progress]:
    """What is new about one job since the last look."""
    if watched.ended:
        return
    view = gitlab.job(watched.job_id)
    if view.acknowledged_at is not None and not watched.began:
        watched.began = True
        yield _told(watched, ProgressKind.JOB_BEGAN)
    lines = output_lines(gitlab.trace(watched.job_id))
    # the last line may be half of one until the job has ended
    told_to = len(lines) if view.is_ended else max(0, len(lines) - 1)
    for line in lines[watched.lines_told : told_to]:
        yield _told(watched, ProgressKind.JOB_OUTPUT, text=line)
    watched.lines_told = max(watched.lines_told, told_to)
    if view.is_ended:
        watched.ended, watched.is_good = True, view.state == JobState.SUCCESS
        yield _told(watched, ProgressKind.JOB_ENDED, text=_how_it_ended(view, watched.sample), view=view)


def _how_it_ended(view: JobView, sample: SampleJob) -> str:
    if view.state == JobState.SUCCESS:
        return "passed"
    reason = f"{view.state} ({view.failure_reason}, exit code {view.exit_code})"
    return f"{reason}, allowed" if sample.allow_failure else reason


def _told(watched: _Watched, kind: ProgressKind, *, text: str = "", view: JobView | None = None) -> Progress:
    elapsed = 0.0 if view is None or view.ended_at is None else view.ended_at - view.queued_at
    return Progress(
        kind=kind,
        stage=watched.sample.stage,
        job_name=watched.sample.name,
        job_id=watched.job_id,
        text=text,
        elapsed_s=elapsed,
        is_good=watched.is_good,
    )
