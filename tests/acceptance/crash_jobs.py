"""Jobs whose output and end are known to the last line, for tests that kill managers.

Each script leaves its job id in a file outside of fleet, once for every time that it was run. Lines on standard output
begin with `@`, lines on standard error with `!`; everything else in a trace is the runner's own frame around them.
Some jobs leave artifacts and caches, and in containers some have a service beside them.
"""

from __future__ import annotations

import collections
import io
import pathlib
import random
import re
import zipfile
from dataclasses import dataclass, field
from typing import Any

from fleet.demo.controls import Controls
from fleet.demo.jobs import JobView
from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job

NAMES = re.compile(r"Instance i-\S+|system ID: \S+|correlation_id=\S+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A job, and what must become of it."""

    kind: str
    payload: dict[str, Any] = field(repr=False)
    output: tuple[str, ...] = field(repr=False)
    errors: tuple[str, ...] = field(default=(), repr=False)
    state: str = "success"
    reason: str = ""
    exit_code: int = 0
    artifact: str = field(default="", repr=False)


class Jobs:
    """Makes known jobs, and finds out what went wrong with them."""

    def __init__(self, evidence: pathlib.Path, rng: random.Random, *, service: str = "") -> None:
        """`service`: an image with a web server, where jobs run in containers."""
        self._evidence = evidence
        self._rng = rng
        self._service = service
        self._kinds = (*KINDS, "served", "served") if service else KINDS
        evidence.touch()

    def make(self, kind: str, seconds: float) -> Known:
        """A job of a kind that runs for about so long."""
        make = getattr(self, f"_{kind}")
        known: Known = make(seconds)
        return known

    def random(self, *, longest_s: float = 12.0) -> Known:
        """A job of any kind that runs for at most about so long."""
        return self.make(self._rng.choice(self._kinds), self._rng.uniform(0.3, 1.0) * longest_s)

    def _known(self, kind: str, lines: list[str], output: list[str], **more: Any) -> Known:
        after = more.pop("after_script", None)
        beside = more.pop("payload", {})
        script = [f'echo "$CI_JOB_ID" >> {self._evidence}', *lines]
        payload = make_job(script=script, after_script=after, name=kind, **beside)
        return Known(kind=kind, payload=payload, output=tuple(output), **more)

    def _slow(self, seconds: float) -> Known:
        count = max(2, int(seconds / 0.4))
        script = f"for i in $(seq 1 {count}); do echo @slow $i; sleep 0.4; done"
        return self._known("slow", [script], [f"@slow {n}" for n in range(1, count + 1)])

    def _burst(self, seconds: float) -> Known:
        parts = 3
        one = f"sleep {seconds / parts:.2f}; seq -f '@burst %.0f' $((part * 1000 + 1)) $((part * 1000 + 700))"
        script = f"for part in $(seq 1 {parts}); do {one}; done"
        output = [f"@burst {part * 1000 + n}" for part in range(1, parts + 1) for n in range(1, 701)]
        return self._known("burst", [script], output)

    def _failing(self, seconds: float) -> Known:
        code = self._rng.randint(1, 120)
        script = ["echo @before", f"sleep {seconds:.2f}", f"echo @last; exit {code}", "echo @never"]
        output = ["@before", "@last"]
        return self._known("failing", script, output, state="failed", reason="script_failure", exit_code=code)

    def _after(self, seconds: float) -> Known:
        script = ["echo @script", f"sleep {seconds / 2:.2f}", "false"]
        after = [f"sleep {seconds / 4:.2f}", "for i in 1 2 3; do echo @after $i; done"]
        output = ["@script", "@after 1", "@after 2", "@after 3"]
        return self._known(
            "after", script, output, after_script=after, state="failed", reason="script_failure", exit_code=1
        )

    def _silent(self, seconds: float) -> Known:
        return self._known("silent", [f"sleep {seconds:.2f}"], [])

    def _large(self, seconds: float) -> Known:
        count = 3000
        filling, pause = "x" * 60, seconds / 4
        one = f"seq -f '@large %.0f {filling}' $((part * 10000 + 1)) $((part * 10000 + {count})); sleep {pause:.2f}"
        script = f"for part in 1 2 3 4; do {one}; done"
        output = [f"@large {part * 10000 + n} {'x' * 60}" for part in range(1, 5) for n in range(1, count + 1)]
        return self._known("large", [script], output)

    def _halves(self, seconds: float) -> Known:
        count = max(2, int(seconds / 2))
        script = f"for i in $(seq 1 {count}); do printf '@half %s' $i; sleep 1.5; echo ' rest'; echo @full $i; done"
        output = [line for n in range(1, count + 1) for line in (f"@half {n} rest", f"@full {n}")]
        return self._known("halves", [script], output)

    def _errors(self, seconds: float) -> Known:
        count = max(2, int(seconds / 0.7))
        script = f"for i in $(seq 1 {count}); do echo @out $i; echo '!err' $i >&2; sleep 0.7; done"
        numbers = range(1, count + 1)
        errors = tuple(f"!err {n}" for n in numbers)
        return self._known("errors", [script], [f"@out {n}" for n in numbers], errors=errors)

    def _stored(self, seconds: float) -> Known:
        lines = self._rng.randint(1000, 20000)
        script = [f"mkdir -p deps; seq 1 {lines} >made.txt; cp made.txt deps/", f"sleep {seconds:.2f}", "echo @made"]
        paths = {"paths": ["made.txt"], "untracked": False, "when": "always", "expire_in": "1 day"}
        kept = {"paths": ["deps"], "untracked": False, "when": "always", "policy": "pull-push", "fallback_keys": []}
        payload = {
            "artifacts": [{"name": "", "artifact_type": "archive", "artifact_format": "zip", **paths}],
            "cache": [{"key": f"key-{self._rng.randrange(1 << 40):x}", **kept}],
        }
        made = "".join(f"{n}\n" for n in range(1, lines + 1))
        return self._known("stored", script, ["@made"], payload=payload, artifact=made)

    def _served(self, seconds: float) -> Known:
        asks = 'echo "@$(curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://site:8080/)"'
        services = [{"name": self._service, "alias": "site", "variables": [{"key": "GREETING", "value": "you"}]}]
        script = [asks, f"sleep {seconds:.2f}", asks]
        return self._known("served", script, ["@hello from web you"] * 2, payload={"services": services})

    def wrongs(self, gitlab: Controls, known: dict[int, Known]) -> list[str]:
        """Everything that is not as it must be, one line each."""
        runs = collections.Counter(self._evidence.read_text(encoding="ascii").split())
        wrongs: list[str] = []
        frames: dict[str, dict[tuple[str, ...], list[int]]] = collections.defaultdict(dict)
        for job_id, job in known.items():
            view = gitlab.job(job_id)
            trace = gitlab.trace(job_id)
            found = [*_wrong_end(view, job), *_wrong_output(trace, job), *_wrong_artifact(gitlab, view, job)]
            if runs[str(job_id)] != 1:
                found.append(f"its script was run {runs[str(job_id)]} times")
            wrongs += [f"job {job_id} ({job.kind}): {each}" for each in found]
            frames[job.kind].setdefault(_frame(trace), []).append(job_id)
        for kind, seen in frames.items():
            if len(seen) > 1:
                wrongs += _different_frames(kind, seen)
        strangers = set(runs) - {str(job_id) for job_id in known}
        return wrongs + [f"a script of no known job was run: {each}" for each in sorted(strangers)]


KINDS = ("slow", "slow", "burst", "failing", "after", "silent", "large", "halves", "errors", "stored", "stored")


def _wrong_end(view: JobView, job: Known) -> list[str]:
    got = (str(view.state), view.failure_reason, view.exit_code)
    want = (job.state, job.reason, job.exit_code)
    return [] if got == want else [f"ended as {got}, not as {want}; {view.events[-3:]}"]


def _wrong_output(trace: bytes, job: Known) -> list[str]:
    lines = output_lines(trace)
    wrong = []
    for mark, wanted in (("@", job.output), ("!", job.errors)):
        got = [line for line in lines if line.startswith(mark)]
        if got != list(wanted):
            wrong.append(_first_difference(got, list(wanted)))
    return wrong


def _wrong_artifact(gitlab: Controls, view: JobView, job: Known) -> list[str]:
    found = gitlab.artifacts(view.id)
    times = sum(name == "artifact" for _, name, _ in view.events)
    if len(found) != times or times != bool(job.artifact):
        return [f"{times} uploads, of which {len(found)} are kept"]
    if not found:
        return []
    with zipfile.ZipFile(io.BytesIO(pathlib.Path(found[0]["path"]).read_bytes())) as archive:
        return [] if archive.read("made.txt").decode() == job.artifact else ["its artifact has another content"]


def _first_difference(got: list[str], want: list[str]) -> str:
    for number, (one, other) in enumerate(zip(got, want, strict=False)):
        if one != other:
            return f"line {number} of its output is {one!r}, not {other!r} ({len(got)} lines of {len(want)})"
    return f"its output has {len(got)} lines of {len(want)}"


def _frame(trace: bytes) -> tuple[str, ...]:
    """What the runner itself wrote; scripts differ in numbers only, so their echo and exit codes are left out."""
    lines = [NAMES.sub("...", line) for line in output_lines(trace) if line[:1] not in {"@", "!", "$"}]
    return tuple(re.sub(r"\d+|key-[0-9a-f]+", "N", line) for line in lines)


def _different_frames(kind: str, seen: dict[tuple[str, ...], list[int]]) -> list[str]:
    usual = max(seen, key=lambda frame: len(seen[frame]))
    return [
        f"jobs {ids} ({kind}): the runner's own lines are {list(frame)}, usually they are {list(usual)}"
        for frame, ids in seen.items()
        if frame != usual
    ]
