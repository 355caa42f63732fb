"""Runs cases of the conformance pipeline, many at once, and tells what was not as it must be."""

from __future__ import annotations

import concurrent.futures
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.pipelines.case import Case, Job
from tests.acceptance.pipelines.world import World

AT_ONCE = 24
PATIENCE_S = 180.0


def run_cases(world: World, cases: Sequence[Case]) -> dict[str, list[str]]:
    """Run all of them; by case, what was wrong (nothing: an empty list)."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE, thread_name_prefix="case") as threads:
        futures = {each.id: threads.submit(_run_case, world, each) for each in cases}
        return {name: future.result() for name, future in futures.items()}


def _run_case(world: World, case: Case) -> list[str]:
    wrongs: list[str] = []
    for number, job in enumerate(case.jobs, start=1):
        try:
            found = _run_job(world, case, job)
        except Exception as exc:  # noqa: BLE001  whatever it is, it is this case's
            found = [f"{type(exc).__name__}: {exc}"]
        wrongs += [f"job {number}: {each}" for each in found]
        if found:
            break  # what follows would stand on it
    return wrongs


def payload_of(world: World, case: Case, job: Job) -> dict[str, Any]:
    """The payload as GitLab sends it."""
    given = dict(world.fill(case, job.more))
    git = None
    if job.source is not None:
        git = job.source(world)
    elif job.files is not None:
        git = world.commit(case, world.fill(case, job.files))
    own: dict[str, Any] = {
        "script": world.fill(case, job.script),
        "after_script": None if job.after is None else world.fill(case, job.after),
        "variables": world.fill(case, job.variables),
        "name": case.id,
        "project": world.project(case),
        "project_id": zlib.crc32(case.id.encode()),  # what runs beside it is of other projects
        "git": git,
    }
    payload = make_job(**own | given)
    if job.edit is not None:
        job.edit(payload)
    return payload


def _run_job(world: World, case: Case, job: Job) -> list[str]:
    gitlab = world.gitlab
    number = gitlab.enqueue(payload_of(world, case, job), runner_id=world.runners[case.runner])
    world.numbers.setdefault(case.id, []).append(number)
    wrongs = [] if job.during is None else job.during(world, number) or []
    (view,) = gitlab.wait_for(number, timeout=PATIENCE_S)
    trace = gitlab.trace(number)
    wrongs = [
        *wrongs,
        *wrong_end(view, job),
        *wrong_trace(world, case, job, trace),
        *wrong_calls(view.events, job.calls),
    ]
    if job.also is not None:
        wrongs += job.also(world, view, trace)
    if wrongs:
        tail = "\n        ".join(output_lines(trace)[-25:])
        wrongs.append(f"its log ends with\n        {tail}")
    return wrongs


def wrong_end(view: Any, job: Job) -> list[str]:
    got = (str(view.state), view.failure_reason, view.exit_code)
    want = (job.state, job.reason, job.exit_code)
    return [] if got == want else [f"ended as {got}, not as {want}"]


def wrong_trace(world: World, case: Case, job: Job, trace: bytes) -> list[str]:
    lines = output_lines(trace)
    text = "\n" + "\n".join(lines) + "\n"
    wrongs = _missing_in_order(lines, world.fill(case, job.lines))
    wrongs += [f"no line has {words!r}" for words in world.fill(case, job.has) if words not in text]
    wrongs += [f"a line has {words!r}" for words in world.fill(case, job.lacks) if words in text]
    pattern = world.fill(case, job.pattern)
    if pattern and not re.search(pattern, trace.decode("utf-8")):
        wrongs.append(f"the trace does not match {pattern!r}")
    return wrongs


def _missing_in_order(lines: list[str], wanted: Iterable[str]) -> list[str]:
    at = 0
    for each in wanted:
        try:
            at = lines.index(each, at) + 1
        except ValueError:
            return [f"no line {each!r}" + (" after the one before" if each in lines else "")]
    return []


def wrong_calls(events: Iterable[tuple[float, str, str]], wanted: Sequence[str]) -> list[str]:
    """Whether GitLab was called in this order, whatever else there was."""
    left = list(wanted)
    for _, name, detail in events:
        if left and f"{name} {detail} ".startswith(f"{left[0]} "):
            left.pop(0)
    return [f"GitLab was not called for {left[0]!r} in its turn"] if left else []
