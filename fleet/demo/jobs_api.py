"""The calls a manager makes for one job: acknowledge, touch, trace, final update.

Rule: `Job-Status` and the update interval stand on every answer that proves a job token. A breach
is what the client could have known better: what was told by an answer that was lost, or told to
a process that was killed since (`Job.forgive`), does not count.
"""

from __future__ import annotations

import re
import time
from typing import Any

from werkzeug.wrappers import Response

from fleet.demo.call import Call, answer, refusal
from fleet.demo.conduct import info_breaches, job_token_breaches
from fleet.demo.jobs import ENDED, Attempt, FinalWord, Job, JobState
from fleet.demo.pace import FULL_CHUNK_BYTES, Early

CONTENT_RANGE = re.compile(r"(\d+)-(\d+)")
CHECKSUM = re.compile(r"crc32:[0-9a-f]{8}")
ALWAYS_KNOWN_REASONS = frozenset({
    "script_failure", "runner_system_failure", "job_execution_timeout", "unknown_failure",
})  # fmt: skip
REFUSALS_IN_A_ROW = 2


def names_of_update(call: Call, body: dict[str, Any]) -> frozenset[str]:
    """What kind of PUT this is, for faults: `ack`, `touch` or `final`, and `update` always."""
    if body.get("state") != "running":
        return frozenset({"update", "final"})
    with call.state.lock:
        job = call.state.jobs.get(call.job_id or 0)
        attempt = job.attempt if job else None
        is_ack = attempt is not None and not attempt.acknowledged
        if attempt is not None and is_ack:
            attempt.ack_was_tried = True
    return frozenset({"update", "ack" if is_ack else "touch"})


def update_job(call: Call, body: dict[str, Any]) -> Response:
    """PUT jobs/:id."""
    token = call.request.headers.get("JOB-TOKEN")
    call.blame(job_token_breaches("update", token, body))
    call.blame(info_breaches("update", body))
    with call.state.lock:
        opened = _open(call, token if token is not None else body.get("token"))
        if isinstance(opened, Response):
            return opened
        job, attempt = opened
        said = body.get("state")
        word = None if said == "running" else _final_word(call, job, body)
        if refused := _over(call, job, attempt, word):
            return refused
        if said == "running":
            if attempt.acknowledged:
                job.note("touch")
            job.acknowledge()
            call.state.changed.notify_all()
            return answer(200, headers=_status_headers(call, job))
        if word is None:
            return refusal(400, f"400 Bad request - state {said!r}")
        return _finish(call, job, attempt, word, _output(call, body))


def append_trace(call: Call) -> Response:
    """PATCH jobs/:id/trace."""
    token = call.request.headers.get("JOB-TOKEN")
    call.blame(job_token_breaches("trace", token, None))
    chunk = call.content()
    with call.state.lock:
        opened = _open(call, token)
        if isinstance(opened, Response):
            return opened
        job, attempt = opened
        if refused := _over(call, job, attempt, None):
            return refused
        if refused := _unacknowledged(call, job, attempt):
            return refused
        start = _range_start(call, chunk)
        if isinstance(start, Response):
            return start
        return _append(call, job, start, chunk)


def _open(call: Call, token: str | None) -> tuple[Job, Attempt] | Response:
    state = call.state
    job = state.jobs.get(call.job_id or 0)
    if job is None:
        call.blame([("unknown_job", f"{call.endpoint}: no such job")])
    if job is None or job.erased:
        return refusal(404, "404 Not Found")
    driven = state.driven_by(token or "")
    if driven is None or driven[0] is not job:
        if token is not None:
            call.blame([("wrong_job_token", f"{call.endpoint}: the token does not open this job")])
        return refusal(403, "403 Forbidden")
    attempt = driven[1]
    driver = call.peer.system_id
    if driver is not None and not attempt.superseded and job.drivers.is_stranger(driver):
        call.blame([("driven_by_two", f"{call.endpoint} by {driver}; it is driven by {job.drivers.current}")])
    return driven


def _over(call: Call, job: Job, attempt: Attempt, word: FinalWord | None) -> Response | None:
    """403 for an attempt that is over; a breach when its client had been told before it called."""
    if not attempt.superseded and job.state not in ENDED:
        return None
    told = attempt.told_over_at
    if told is not None and call.started > told:
        if word is not None and word == job.final_word and attempt.repeats_allowed > 0:
            attempt.repeats_allowed -= 1
        else:
            end = "its hand-over was taken back" if attempt.superseded else f"the job was {job.state}"
            call.blame([("call_after_end", f"{call.endpoint} after {end}")])
    if word is not None:
        _compare_final_words(call, job, word)
    attempt.told_over_at = time.monotonic()
    if attempt.superseded:
        return refusal(403, "403 Forbidden")
    return refusal(403, "403 Forbidden - Job is not running", {"Job-Status": job.state})


def _unacknowledged(call: Call, job: Job, attempt: Attempt) -> Response | None:
    """A trace before the acknowledgement: legal only if that was tried and went wrong."""
    if attempt.acknowledged:
        return None
    if not attempt.ack_was_tried:
        call.blame([("not_acknowledged", f"{call.endpoint} before PUT state=running")])
        return refusal(403, "403 Forbidden - Job is not running", {"Job-Status": "pending"})
    job.acknowledge()
    return None


def _range_start(call: Call, chunk: bytes) -> int | Response:
    header = call.request.headers.get("Content-Range", "")
    match = CONTENT_RANGE.fullmatch(header)
    if match is None:
        call.blame([("bad_header", f"trace: Content-Range is {header!r}, must be <start>-<end>")])
        return refusal(400, "400 Missing header Content-Range")
    if not chunk:
        call.blame([("empty_patch", f"Content-Range {header} with an empty body")])
        return refusal(400, "400 Bad request - empty trace")
    start, end = int(match[1]), int(match[2])
    if end - start + 1 != len(chunk):
        call.blame([("wrong_range", f"Content-Range {header} with {len(chunk)} bytes")])
        return refusal(400, "400 Bad request - Content-Range")
    if len(chunk) > FULL_CHUNK_BYTES:
        call.blame([("chunk_too_large", f"{len(chunk)} bytes, at most {FULL_CHUNK_BYTES}")])
        return refusal(413, "413 Request Entity Too Large")
    return start


def _append(call: Call, job: Job, start: int, chunk: bytes) -> Response:
    size = job.trace.size
    differs_at = job.trace.first_difference(start, chunk)
    if differs_at is not None:
        call.blame([("different_bytes", f"byte {differs_at} is not what was sent for it before")])
    if start != size:
        return _refuse_range(call, job, start)
    if job.final_is_open:
        call.blame([("trace_after_final", f"PATCH at {start} after the final update")])
    job.refused_ranges, job.may_not_know_size = 0, False
    job.trace.append(chunk)
    _note_growth(job, size)
    if job.final_at is None:
        _blame_early(call, job.pace.patched(call.started, len(chunk)))
    call.state.changed.notify_all()
    headers = _status_headers(call, job) | {"Range": f"0-{job.trace.size}"}
    return answer(202, headers=headers)


def _refuse_range(call: Call, job: Job, start: int) -> Response:
    size = job.trace.size
    job.refused_ranges += 1
    job.note("range_refused", f"{start} with {size} stored")
    if start > size and not job.may_not_know_size:
        call.blame([("range_gap", f"PATCH started at {start}, {size} bytes are stored")])
    elif job.refused_ranges > REFUSALS_IN_A_ROW:
        detail = f"PATCH at {start} with {size} stored; told {job.refused_ranges - 1} times where to go on"
        call.blame([("range_overlap", detail)])
    job.may_not_know_size = False
    return refusal(416, "416 Range Not Satisfiable", _status_headers(call, job) | {"Range": f"0-{size}"})


def _note_growth(job: Job, before: int) -> None:
    job.note("first_trace" if before == 0 else "trace", str(job.trace.size))
    if job.marker and "marker" not in job.instants:
        at = max(0, before - len(job.marker) + 1)
        if job.trace.data.find(job.marker, at) >= 0:
            job.note("marker")


def _blame_early(call: Call, early: list[Early]) -> None:
    call.blame(
        ("too_fast", f"PATCH {each.gap_s:.2f} s after the one before, interval {each.interval_s:g} s") for each in early
    )


def _final_word(call: Call, job: Job, body: dict[str, Any]) -> FinalWord | None:
    said = body.get("state")
    reason = body.get("failure_reason") or ""
    exit_code = body.get("exit_code", 0)
    if said not in {"success", "failed"}:
        call.blame([("bad_state", f"state {said!r} is none of running, success, failed")])
        return None
    if not isinstance(exit_code, int) or isinstance(exit_code, bool):
        call.blame([("bad_body", f"exit_code {exit_code!r} is no number")])
        exit_code = 0
    known = ALWAYS_KNOWN_REASONS | set((job.payload.get("features") or {}).get("failure_reasons") or ())
    if said == "success" and (reason or exit_code):
        call.blame([("bad_body", f"success with failure_reason {reason!r}, exit_code {exit_code}")])
    elif said == "failed" and reason not in known:
        call.blame([("unmapped_failure_reason", f"{reason!r} is not in features.failure_reasons")])
    return FinalWord(state=said, failure_reason=str(reason), exit_code=exit_code)


def _output(call: Call, body: dict[str, Any]) -> tuple[str | None, int | None]:
    output = body.get("output")
    given = output if isinstance(output, dict) else {}
    checksum, size = given.get("checksum"), given.get("bytesize")
    if checksum is not None and not (isinstance(checksum, str) and CHECKSUM.fullmatch(checksum)):
        call.blame([("bad_body", f"output.checksum {checksum!r} is not crc32: and 8 hex digits")])
        checksum = None
    if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
        call.blame([("bad_body", f"output.bytesize {size!r} is no number")])
        size = None
    return checksum, size


def _finish(call: Call, job: Job, attempt: Attempt, word: FinalWord, output: tuple[str | None, int | None]) -> Response:
    if refused := _unacknowledged(call, job, attempt):
        return refused
    _compare_final_words(call, job, word)
    _blame_early_repeat(call, job)
    if job.final_at is None:
        _blame_early(call, job.pace.ended(call.started))
    job.final_word, job.final_at, job.final_is_open = word, call.started, True
    job.note("final", f"{word.state} {output[0]} {output[1]}")
    if not _output_is_right(call, job, output):
        job.trace.forget_from(0)
        job.final_is_open = False
        job.final_at = call.started
        return refusal(412, "412 Precondition Failed", _status_headers(call, job))
    if job.final_202 > 0:
        job.final_202 -= 1
        return answer(202, headers=_status_headers(call, job))
    ended = JobState.CANCELED if job.state is JobState.CANCELING else JobState(word.state)
    call.state.settle(job, ended, word.failure_reason, word.exit_code)
    attempt.told_over_at = time.monotonic()
    attempt.repeats_allowed += 1
    return answer(200, headers=_status_headers(call, job))


def _output_is_right(call: Call, job: Job, output: tuple[str | None, int | None]) -> bool:
    checksum, size = output
    if job.final_412 > 0:
        job.final_412 -= 1
        return False
    trace = job.trace
    wrong = (checksum is not None and checksum != trace.checksum) or (size is not None and size != trace.size)
    if wrong and not trace.damaged:
        detail = f"says {checksum} {size} bytes; stored {trace.checksum} {trace.size} bytes"
        call.blame([("wrong_checksum", detail)])
    return not wrong


def _compare_final_words(call: Call, job: Job, word: FinalWord) -> None:
    if job.final_word is not None and job.final_word != word:
        call.blame([("driven_twice", f"ended as {word} after it had ended as {job.final_word}")])


def _blame_early_repeat(call: Call, job: Job) -> None:
    """After a 202 the same update is due one interval later."""
    if not job.final_is_open or job.final_at is None:
        return
    gap = call.started - job.final_at
    if gap < job.pace.interval_s - call.state.knobs.slack_s:
        call.blame([("too_fast", f"final update {gap:.2f} s after the one before")])


def _status_headers(call: Call, job: Job) -> dict[str, str]:
    interval = call.state.knobs.update_interval_s
    job.pace.interval_s = float(interval)
    return {"Job-Status": job.state, "X-GitLab-Trace-Update-Interval": str(interval)}
