"""The typed way to drive a pretend GitLab, whether it runs in this process or in another.

Rule: `Controls` knows only how to `call` a verb of `console.py`; `PretendGitLab` calls it directly
and `RemoteGitLab` over HTTP, so a test can be moved from one to the other unchanged.
"""

from __future__ import annotations

import abc
import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override
from websockets.sync.client import ClientConnection

from fleet.demo.jobs import JobView
from fleet.demo.payload import GitSource, Payload
from fleet.demo.workhorse import open_terminal

WAIT_CHUNK_S = 5.0
HTTP_TIMEOUT_S = 60.0


class Controls(abc.ABC):
    """Every verb with its types; instants are Unix seconds, durations seconds."""

    @abc.abstractmethod
    def call(self, verb: str, **arguments: Any) -> Any:
        """Do one verb of the console."""

    @property
    def registration_token(self) -> str:
        """For the legacy way to register."""
        return str(self.call("secrets")["registration_token"])

    @property
    def private_token(self) -> str:
        """A person's access token."""
        return str(self.call("secrets")["private_token"])

    def create_runner(self, **options: Any) -> dict[str, Any]:
        """`description, legacy, paused, lifetime_s` -> `id, token, expires_at, ...`."""
        return dict(self.call("create_runner", **options))

    def set_runner(self, runner_id: int, **values: Any) -> dict[str, Any]:
        """Change `paused, revoked, expires_at, lifetime_s`."""
        return dict(self.call("set_runner", runner_id=runner_id, **values))

    def runners(self) -> list[dict[str, Any]]:
        """All of them, with their managers by system id."""
        return list(self.call("runners"))

    def set_knobs(self, **values: float) -> dict[str, Any]:
        """Change `hold_s, ack_within_s, update_interval_s, slack_s, artifacts_limit_bytes`."""
        return dict(self.call("set_knobs", **values))

    def enqueue(
        self,
        payload: Payload,
        *,
        runner_id: int | None = None,
        marker: str = "",
        requires: Sequence[str] = (),
        final_202: int = 0,
        final_412: int = 0,
    ) -> int:
        """Queue a job; its id.

        `marker` is a text whose first appearance in the trace is timed (`JobView.marker_at`);
        `final_202` and `final_412` are how often the final update is answered so.
        """
        return int(
            self.call(
                "enqueue",
                payload=payload,
                runner_id=runner_id,
                marker=marker,
                requires=list(requires),
                final_202=final_202,
                final_412=final_412,
            )
        )

    def cancel(self, job_id: int, *, force: bool = False) -> str:
        """Press cancel; the state that follows."""
        return str(self.call("cancel", job_id=job_id, force=force))

    def session(self, job_id: int) -> dict[str, str] | None:
        """`url, certificate, authorization` of the job's terminal; None when its manager serves none."""
        return self.call("session", job_id=job_id)  # type: ignore[no-any-return]

    def open_terminal(self, job_id: int, **options: Any) -> ClientConnection:
        """A websocket to the job's terminal, as GitLab opens one; options as in `workhorse.open_terminal`."""
        session = self.session(job_id)
        if session is None:
            raise LookupError(f"the manager of job {job_id} serves no terminals")
        return open_terminal(session, **options)

    def drop(self, job_id: int, reason: str = "stuck_or_timeout_failure") -> str:
        """Fail the job on the server's side."""
        return str(self.call("drop", job_id=job_id, reason=reason))

    def erase(self, job_id: int) -> None:
        """Delete the job: 404 from now on."""
        self.call("erase", job_id=job_id)

    def damage_trace(self, job_id: int) -> None:
        """One final update will be answered 412."""
        self.call("damage_trace", job_id=job_id)

    def truncate_trace(self, job_id: int, size: int) -> None:
        """Lose the stored bytes from `size` on."""
        self.call("truncate_trace", job_id=job_id, size=size)

    def allow_rewrite(self, job_id: int) -> None:
        """Compare no more with what was lost."""
        self.call("allow_rewrite", job_id=job_id)

    def manager_restarted(self) -> None:
        """Say so after each kill of a manager."""
        self.call("manager_restarted")

    def manager_takeover(self) -> None:
        """Say so before another manager takes jobs over."""
        self.call("manager_takeover")

    def add_fault(self, kind: str, endpoint: str = "*", **options: Any) -> int:
        """`job_id, count (None: until lifted), skip, status, headers, seconds`; the fault's number."""
        return int(self.call("add_fault", kind=str(kind), endpoint=endpoint, **options))

    def lift_fault(self, number: int | None = None) -> None:
        """One, or all."""
        self.call("lift_fault", number=number)

    def fault_struck(self, number: int) -> int:
        """How many calls it has struck."""
        return int(self.call("fault_struck", number=number))

    def outage(self, seconds: float | None = None) -> None:
        """Reset every call, for so long or until `end_outage`."""
        self.call("outage", seconds=seconds)

    def end_outage(self) -> None:
        """Answer again."""
        self.call("end_outage")

    def job(self, job_id: int) -> JobView:
        """One job."""
        return _job_view(self.call("job", job_id=job_id))

    def jobs(self) -> list[JobView]:
        """All jobs, oldest first."""
        return [_job_view(each) for each in self.call("jobs")]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return dict(self.call("counts"))

    def trace(self, job_id: int) -> bytes:
        """The stored trace."""
        return base64.b64decode(self.call("trace", job_id=job_id))

    def wait_for(self, *job_ids: int, states: Sequence[str] = (), timeout: float = 30.0) -> list[JobView]:
        """The jobs, once all are in one of `states` (none named: ended); TimeoutError says who is not."""
        by = time.monotonic() + timeout
        names = [str(state) for state in states]
        while True:
            left = max(0.0, min(WAIT_CHUNK_S, by - time.monotonic()))
            if self.call("wait_for", job_ids=list(job_ids), states=names, timeout=left):
                return [self.job(job_id) for job_id in job_ids]
            if time.monotonic() >= by:
                told = ", ".join(f"{job_id} {self.job(job_id).state}" for job_id in job_ids)
                raise TimeoutError(f"after {timeout:g} s, wanted {names or 'an end'}: {told}")

    def wait_for_trace(self, job_id: int, text: str, *, timeout: float = 30.0) -> bytes:
        """The trace, once it contains `text`; TimeoutError shows its end."""
        by = time.monotonic() + timeout
        while True:
            left = max(0.0, min(WAIT_CHUNK_S, by - time.monotonic()))
            if self.call("wait_for_trace", job_id=job_id, text=text, timeout=left):
                return self.trace(job_id)
            if time.monotonic() >= by:
                raise TimeoutError(f"after {timeout:g} s, no {text!r} in ...{self.trace(job_id)[-500:]!r}")

    def artifacts(self, job_id: int) -> list[dict[str, Any]]:
        """`artifact_type, artifact_format, expire_in, filename, size, sha256, path` (a file of the server) of each."""
        return list(self.call("artifacts", job_id=job_id))

    def offer_artifacts(self, content: bytes, *, filename: str = "artifacts.zip") -> int:
        """Artifacts of an earlier job that never ran here; its id."""
        return int(self.call("offer_artifacts", content=base64.b64encode(content).decode(), filename=filename))

    def expire_artifacts(self, job_id: int) -> None:
        """Forget them: a download answers 404."""
        self.call("expire_artifacts", job_id=job_id)

    def dependency(self, job_id: int, *, name: str = "") -> dict[str, Any]:
        """An entry of `dependencies` for a later job's payload."""
        return dict(self.call("dependency", job_id=job_id, name=name))

    def violations(self) -> list[str]:
        """Every breach so far, as `slug: job N: detail`."""
        return list(self.call("violations"))

    def clear_violations(self) -> None:
        """Forget those that were provoked."""
        self.call("clear_violations")

    def commit(self, project: str, files: Mapping[str, str], **options: Any) -> GitSource:
        """Commit files; `ref, tag, message, submodules={path: (url, sha)}, large={path: text}` (git-lfs)."""
        return GitSource(**self.call("commit", project=project, files=dict(files), **options))


class RemoteGitLab(Controls):
    """Drives a pretend GitLab that runs in another process."""

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        self.url = url
        self._tls = ssl.create_default_context(cafile=ca_file) if url.startswith("https") else None

    @override
    def call(self, verb: str, **arguments: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310  the scheme is the server's own
            f"{self.url}/_control/{verb}",
            data=json.dumps(arguments).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S, context=self._tls) as response:  # noqa: S310  the same
                return json.load(response)["result"]
        except urllib.error.HTTPError as refused:
            with refused:
                raise ValueError(refused.read().decode()) from refused


def _job_view(fields: Mapping[str, Any]) -> JobView:
    events = [(at, name, detail) for at, name, detail in fields["events"]]
    return JobView(**{**fields, "events": events})
