"""What a test may do to the pretend GitLab and ask of it, as verbs with JSON in and JSON out.

Rule: the same verbs serve a test in the same process and one over HTTP, so both see the same thing.
`controls.py` is the typed way to call them.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from fleet.demo.artifacts_api import dependency
from fleet.demo.faults import Fault, FaultKind
from fleet.demo.githost import GitHost
from fleet.demo.jobs import ENDED, JobState
from fleet.demo.payload import Payload
from fleet.demo.state import State

Json = dict[str, Any]


class Console:
    """Every public method is a verb."""

    def __init__(self, state: State, git: GitHost) -> None:
        self._state = state
        self._git = git

    def do(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Call one verb by name."""
        method = None if verb.startswith("_") or verb == "do" else getattr(self, verb, None)
        if method is None:
            raise LookupError(f"no verb {verb!r}")
        return method(**arguments)

    def secrets(self) -> Json:
        """The registration token and a person's access token."""
        runners = self._state.runners
        return {"registration_token": runners.registration_token, "private_token": runners.private_token}

    def create_runner(
        self, *, description: str = "", legacy: bool = False, paused: bool = False, lifetime_s: float | None = None
    ) -> Json:
        """A runner as an administrator makes it."""
        with self._state.lock:
            return self._state.runners.create(
                description=description, legacy=legacy, paused=paused, lifetime_s=lifetime_s
            ).view()

    def set_runner(self, *, runner_id: int, **values: Any) -> Json:
        """Change `paused`, `revoked`, `expires_at` or `lifetime_s`; held polls of the runner are answered."""
        if wrong := set(values) - {"paused", "revoked", "expires_at", "lifetime_s"}:
            raise ValueError(f"cannot set {', '.join(sorted(wrong))}")
        with self._state.lock:
            runner = self._state.runners.get(runner_id)
            for key, value in values.items():
                setattr(runner, key, value)
            runner.queue_version += 1
            self._state.queued.notify_all()
            return runner.view()

    def runners(self) -> list[Json]:
        """All of them, with the managers seen."""
        with self._state.lock:
            return [runner.view() for runner in self._state.runners.all()]

    def set_knobs(self, **values: Any) -> Json:
        """Change `hold_s`, `ack_within_s`, `update_interval_s`, `slack_s`, `artifacts_limit_bytes`."""
        with self._state.lock:
            for key, value in values.items():
                if key not in {field.name for field in dataclasses.fields(self._state.knobs)}:
                    raise ValueError(f"no knob {key!r}")
                setattr(self._state.knobs, key, value)
            return dataclasses.asdict(self._state.knobs)

    def enqueue(self, *, payload: Payload, requires: tuple[str, ...] = (), **options: Any) -> int:
        """Queue a payload."""
        return self._state.enqueue(payload, requires=tuple(requires), **options)

    def cancel(self, *, job_id: int, force: bool = False) -> str:
        """As a person presses cancel: gracefully when the runner can, unless `force`."""
        state = self._state
        with state.lock:
            job = state.jobs[job_id]
            attempt = job.attempt
            gently = attempt is not None and attempt.features.get("cancel_gracefully") and not force
            if job.state in {JobState.RUNNING, JobState.CANCELING} and gently:
                job.state = JobState.CANCELING
                job.note("canceling")
                state.changed.notify_all()
            else:
                state.settle(job, JobState.CANCELED)
            return job.state

    def session(self, *, job_id: int) -> Json | None:
        """Where the terminal of a job is, as its manager said when it asked for the job."""
        with self._state.lock:
            attempt = self._state.jobs[job_id].attempt
            return None if attempt is None else attempt.session

    def drop(self, *, job_id: int, reason: str = "stuck_or_timeout_failure") -> str:
        """The server fails the job by itself."""
        with self._state.lock:
            job = self._state.jobs[job_id]
            self._state.settle(job, JobState.FAILED, reason)
            return job.state

    def erase(self, *, job_id: int) -> None:
        """The job is deleted: every call for it answers 404."""
        with self._state.lock:
            self._state.jobs[job_id].erased = True

    def damage_trace(self, *, job_id: int) -> None:
        """The stored bytes go bad: the final update's checksum will not fit, once."""
        with self._state.lock:
            self._state.jobs[job_id].trace.damaged = True

    def truncate_trace(self, *, job_id: int, size: int) -> None:
        """The server loses everything from `size` on."""
        with self._state.lock:
            job = self._state.jobs[job_id]
            job.trace.forget_from(size)
            job.may_not_know_size = True

    def allow_rewrite(self, *, job_id: int) -> None:
        """The client may send other bytes for what the server lost."""
        with self._state.lock:
            self._state.jobs[job_id].trace.allow_rewrite()

    def manager_restarted(self) -> None:
        """Call it after each kill of a manager: forgives what it cannot know."""
        self._state.forgive_all()

    def manager_takeover(self) -> None:
        """Another manager may step in for any job from now on, once."""
        with self._state.lock:
            for job in self._state.jobs.values():
                job.drivers.takeover = True
                job.forgive()

    def add_fault(self, *, kind: str, **options: Any) -> int:
        """Go wrong as `faults.py` says; the number lifts it."""
        return self._state.faults.add(Fault(kind=FaultKind(kind), **options))

    def lift_fault(self, *, number: int | None = None) -> None:
        """Go right again; without number in everything."""
        self._state.faults.lift(number)

    def fault_struck(self, *, number: int) -> int:
        """How many calls it has struck."""
        return self._state.faults.struck(number)

    def outage(self, *, seconds: float | None = None) -> None:
        """Reset every connection that calls the API, for so long or until `end_outage`."""
        with self._state.lock:
            for job in self._state.jobs.values():
                job.forgive()
        self._state.outage_until = float("inf") if seconds is None else time.monotonic() + seconds

    def end_outage(self) -> None:
        """Answer again."""
        self._state.outage_until = None

    def job(self, *, job_id: int) -> Json:
        """One job."""
        with self._state.lock:
            return dataclasses.asdict(self._state.jobs[job_id].view())

    def jobs(self) -> list[Json]:
        """All jobs, oldest first."""
        with self._state.lock:
            return [dataclasses.asdict(job.view()) for job in self._state.jobs.values()]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._state.lock:
            return dict(collections.Counter(str(job.state) for job in self._state.jobs.values()))

    def trace(self, *, job_id: int) -> str:
        """The stored trace in base64."""
        with self._state.lock:
            data = bytes(self._state.jobs[job_id].trace.data)
        return base64.b64encode(data).decode()

    def wait_for(self, *, job_ids: list[int], states: list[str], timeout: float) -> bool:
        """Whether all these jobs came to one of these states (none named: ended) in time."""
        wanted = {JobState(state) for state in states} or ENDED
        state = self._state
        with state.lock:
            jobs = [state.jobs[job_id] for job_id in job_ids]
            return state.changed.wait_for(
                lambda: state.stopping.is_set() or all(job.state in wanted for job in jobs), timeout
            ) and all(job.state in wanted for job in jobs)

    def wait_for_trace(self, *, job_id: int, text: str, timeout: float) -> bool:
        """Whether this text came to stand in the job's trace in time."""
        state, wanted = self._state, text.encode()
        looked_to = 0
        with state.lock:
            trace = state.jobs[job_id].trace

            def is_there() -> bool:
                nonlocal looked_to
                # only what is new is searched: a trace may be 500 MB and grow every second
                begin = max(0, min(looked_to, trace.size) - len(wanted))
                looked_to = trace.size
                return trace.data.find(wanted, begin) >= 0

            by = time.monotonic() + timeout
            while not (found := is_there()) and not state.stopping.is_set():
                if not state.changed.wait(by - time.monotonic()):
                    return is_there()
            return found

    def artifacts(self, *, job_id: int) -> list[Json]:
        """What a job uploaded; `path` is a file of the server."""
        return [each.view() for each in self._state.artifacts.of(job_id)]

    def offer_artifacts(self, *, content: str, filename: str = "artifacts.zip") -> int:
        """Artifacts (base64) of an earlier job that never ran here; its id."""
        return self._state.artifacts.offer(base64.b64decode(content), filename)

    def expire_artifacts(self, *, job_id: int) -> None:
        """They are gone."""
        self._state.artifacts.forget(job_id)

    def dependency(self, *, job_id: int, name: str = "") -> Json:
        """How the payload of a later job names the archive of this one, with a token of its own."""
        found = self._state.artifacts.archive(job_id)
        if found is None:
            raise LookupError(f"job {job_id} has no archive")
        token = self._state.artifacts.token_for(job_id)
        return dependency(job_id, name or f"job-{job_id}", found, token)

    def violations(self) -> list[str]:
        """Every breach of the protocol so far."""
        return self._state.violations.lines()

    def clear_violations(self) -> None:
        """Forget them."""
        self._state.violations.clear()

    def commit(
        self,
        *,
        submodules: Mapping[str, tuple[str, str]] | None = None,
        project: str,
        files: Mapping[str, str],
        large: Mapping[str, str] | None = None,
        **options: str,
    ) -> Json:
        """Commit files to a project's repository."""
        return dataclasses.asdict(self._git.commit(project, files, submodules=submodules, large=large, **options))
