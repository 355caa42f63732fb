"""What a case of the conformance pipeline says: a behaviour, the jobs that show it, and what must become of them.

Cases are data. Texts may hold `@url@` (the pretend GitLab), `@project@` (this case's own project), `@secret@` (a word
made up for this case), `@image/NAME@` (an image of `tests.docker.images`), `@dependency/N@` (the artifacts of this
case's N-th job) and what else `World.words` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

INSTANCE, DOCKER = "instance", "docker-autoscaler"
BOTH = (INSTANCE, DOCKER)
SECTIONS = {
    "1.6": "The life of a job",
    "1.7": "Time limits, cancel, exit codes, retries",
    "1.8": "Shells and scripts",
    "1.9": "Sources",
    "1.10": "Variables and masking",
    "1.11": "The log",
    "1.12": "Executors",
    "1.13": "Containers",
    "1.14": "Cache",
    "1.15": "Artifacts and reports",
    "1.20": "Secrets",
    "3": "The payload",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job and what must become of it.

    Attributes:
        script, after: what `make_job` takes; `more` is the rest of it.
        files: committed to the case's project before the job; None is `GIT_STRATEGY=none`.
        source: what is committed, where files are not enough.
        edit: changes the finished payload.
        during: called with the world and the job's id as soon as the job is queued; tells what is wrong.
        lines: lines of the log, in this order. `has`, `lacks`: words in some line, in no line.
        pattern: a regular expression that is found in the whole trace with its marks.
        calls: what GitLab was called for, in this order, as the pretend GitLab notes it.
        also: what else is wrong, told by a function of the world, the job's view and its trace.
    """

    script: Sequence[str] = ("echo hello",)
    after: Sequence[str] | None = None
    variables: Mapping[str, str] | Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] | None = None
    source: Callable[[Any], Any] | None = None
    edit: Callable[[dict[str, Any]], None] | None = None
    during: Callable[[Any, int], Sequence[str] | None] | None = None
    state: str = "success"
    reason: str = ""
    exit_code: int = 0
    lines: Sequence[str] = ()
    has: Sequence[str] = ()
    lacks: Sequence[str] = ()
    pattern: str = ""
    calls: Sequence[str] = ("acknowledged", "first_trace", "final", "ended")
    also: Callable[[Any, Any, bytes], Sequence[str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A behaviour of GitLab Runner.

    Attributes:
        jobs: run one after the other.
        on: the executors it is about.
        runner: which entry of the configuration takes it (`tests.acceptance.pipelines.world`).
        not_yet: for each executor where it is missing, why; it is not run there.
        differs: for each executor where it is otherwise on purpose, how and why; the jobs show ours.
        proof: a test that shows it, where no job can.
    """

    id: str
    section: str
    title: str
    jobs: Sequence[Job] = ()
    on: Sequence[str] = BOTH
    runner: str = "plain"
    not_yet: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)
    proof: str = ""

    def status(self, executor: str) -> str:
        """For the table."""
        if executor not in self.on:
            return "-"
        if executor in self.not_yet:
            return f"not yet: {self.not_yet[executor]}"
        if executor in self.differs:
            return f"differs: {self.differs[executor]}"
        return "yes"

    def runs_on(self, executor: str) -> bool:
        """Whether its jobs are run there."""
        return bool(self.jobs) and executor in self.on and executor not in self.not_yet


def case(name: str, section: str, title: str, *jobs: Job, **more: Any) -> Case:
    """A case, in fewer words."""
    return Case(id=name, section=section, title=title, jobs=jobs, **more)


def failed(code: int = 1, **more: Any) -> Job:
    """A job whose script fails."""
    return Job(state="failed", reason="script_failure", exit_code=code, **more)


def everywhere(why: str) -> dict[str, str]:
    """The same word for all executors."""
    return dict.fromkeys(BOTH, why)


def var(key: str, value: str, **more: Any) -> dict[str, Any]:
    """A variable as a payload has it."""
    return {"key": key, "value": value, "public": True, **more}


def step(name: str, *script: str) -> dict[str, Any]:
    """A step as a payload has it."""
    return {"name": name, "script": list(script), "timeout": 3600, "when": "on_success", "allow_failure": False}
