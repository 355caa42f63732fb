"""GitLab's runner API: the one place that knows its paths, headers and bodies.

Rule: a call sends one thing and says what came of it (`fleet.gitlab.outcomes`). There are no threads here, no waiting
for jobs and no memory beyond the connections: `intake` decides when to ask for a job and keeps `last_update` per
token, `reporting` decides what to send and when again. The `info` object (`fleet.gitlab.info`) goes with everything
that takes it, for GitLab believes the last one it saw.
"""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from fleet.gitlab import answers
from fleet.gitlab.cancel import Cancel
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.outcomes import (
    BrokenOffer,
    Doubt,
    Forbidden,
    Invalid,
    JobOffer,
    NoJob,
    PatchResult,
    Refused,
    Registered,
    TokenReset,
    Unavailable,
    Unregistered,
    Unusable,
    UpdateResult,
    Verified,
    Withdrawn,
)
from fleet.gitlab.tls import TlsForJobs
from fleet.gitlab.wire import Call, CountRetry, Observe, Timeouts, Wire

PAYLOAD_LIMIT_BYTES = 128 << 20

Headers = tuple[tuple[bytes, bytes], ...]
Info = Mapping[str, Any]

_JSON = (b"Content-Type", b"application/json")
_ACCEPT = (b"Accept", b"application/json")
_TRACE = (b"Content-Type", b"text/plain")


def _pause(cancel: Cancel | None, seconds: float) -> bool:
    """Wait, at most until the stop sign is set; True when it is."""
    if cancel is not None:
        return cancel.wait(seconds)
    time.sleep(seconds)
    return False


class GitLab:
    """One server. Make one per `Endpoint` and share it: any number of threads may call it at once.

    `now` is the wall clock, for `RateLimit-ResetTime` of servers that send no `Date`. A server that asks for more
    patience than `longest_wait_s` is not asked again within the call; the result says `retry_after_s`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        user_agent: str,
        now: Callable[[], datetime],
        connection_max_age_s: float = 900.0,
        certificate_directory: pathlib.Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        longest_wait_s: float = 60.0,
        pause: Callable[[Cancel | None, float], bool] = _pause,
        observe: Observe | None = None,
        count_retry: CountRetry | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._wire = Wire(
            endpoint,
            user_agent=user_agent,
            now=now,
            environment=os.environ if environment is None else environment,
            certificate_directory=certificate_directory,
            connection_max_age_s=connection_max_age_s,
            timeouts=timeouts or Timeouts(),
            longest_wait_s=longest_wait_s,
            pause=pause,
            observe=observe,
            count_retry=count_retry,
        )

    def close(self) -> None:
        """Close the connections; calls in progress end as they would."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_files(self) -> TlsForJobs:
        """Read the TLS files now; raises `TlsFileError`, which names the one that cannot be used."""
        return self._wire.tls().for_jobs

    # --- the registration family ---

    def register(
        self, *, token: str, info: Info, settings: Mapping[str, Any] | None = None, cancel: Cancel | None = None
    ) -> Registered | Refused | Invalid | Doubt:
        """Make a runner with a registration token (the old way).

        `settings`: description, maintenance_note, tag_list, run_untagged, locked, access_level, maximum_timeout,
        paused.
        """
        body = {**(settings or {}), "info": info, "token": token}
        call = self._call("register_runner", "POST", "runners", _runner_token(token), body)
        return answers.registered(self._wire.send(call, cancel), call)

    def verify(
        self, *, token: str, system_id: str, info: Info, runner: str = "", cancel: Cancel | None = None
    ) -> Verified | Refused | Doubt:
        """Ask whether a runner's token is good. Only `Refused` says no."""
        body = {"info": info, "token": token, "system_id": system_id}
        call = self._call("verify_runner", "POST", "runners/verify", _runner_token(token), body, runner=runner)
        return answers.verified(self._wire.send(call, cancel), call)

    def unregister(self, *, token: str, cancel: Cancel | None = None) -> Unregistered | Refused | Doubt:
        """Remove a runner that was registered the old way, with all its managers."""
        call = self._call(
            "unregister_runner", "DELETE", "runners", _runner_token(token), {"token": token}, accept=False
        )
        return answers.unregistered(self._wire.send(call, cancel), call)

    def unregister_manager(
        self, *, token: str, system_id: str, cancel: Cancel | None = None
    ) -> Unregistered | Refused | Doubt:
        """Remove this manager's record of a runner that stays."""
        body = {"token": token, "system_id": system_id}
        call = self._call(
            "unregister_runner_manager", "DELETE", "runners/managers", _runner_token(token), body, accept=False
        )
        return answers.unregistered(self._wire.send(call, cancel), call)

    def reset_token(
        self, *, token: str, runner: str = "", cancel: Cancel | None = None
    ) -> TokenReset | Refused | Doubt:
        """Get a new token for the old one. After `Doubt` the old one may be dead: keep both until one is verified."""
        path = "runners/reset_authentication_token"
        call = self._call("reset_token", "POST", path, _runner_token(token), {"token": token}, runner=runner)
        return answers.token_reset(self._wire.send(call, cancel), call)

    def reset_token_by_pat(
        self, *, runner_id: int, pat: str, cancel: Cancel | None = None
    ) -> TokenReset | Refused | Doubt:
        """Get a new token with a person's access token."""
        call = Call(
            endpoint="reset_token_using_pat",
            method="POST",
            template="runners/{id}/reset_authentication_token",
            path=f"runners/{runner_id:d}/reset_authentication_token",
            headers=((b"PRIVATE-TOKEN", _ascii(pat)), _JSON, _ACCEPT),
            body=b"",
            needs_body=True,
        )
        return answers.token_reset(self._wire.send(call, cancel), call)

    # --- jobs ---

    def request_job(
        self,
        *,
        token: str,
        system_id: str,
        info: Info,
        last_update: str | None = None,
        session: Mapping[str, str] | None = None,
        runner: str = "",
        cancel: Cancel | None = None,
    ) -> JobOffer | BrokenOffer | NoJob | Forbidden | Unusable | Unavailable | Withdrawn:
        """Ask for a job; GitLab may hold the answer for a minute. Setting `cancel` ends it at once.

        A job that was on its way when `cancel` was set still comes back as `JobOffer`: acknowledge or fail it.
        """
        body: dict[str, Any] = {"info": info, "token": token, "system_id": system_id}
        if last_update:
            body["last_update"] = last_update
        if session:
            body["session"] = session
        call = Call(
            endpoint="request_job",
            method="POST",
            template="jobs/request",
            headers=(*_runner_token(token), _JSON, _ACCEPT),
            body=_encoded(body),
            runner=runner,
            is_poll=True,
            limit_bytes=PAYLOAD_LIMIT_BYTES,
            needs_body=True,
            wants_tls=True,
        )
        return answers.requested(self._wire.send(call, cancel), call, last_update)

    def update_job(
        self,
        *,
        job_id: int,
        token: str,
        info: Info,
        state: str,
        failure_reason: str | None = None,
        exit_code: int | None = None,
        crc32: int | None = None,
        bytesize: int | None = None,
        runner: str = "",
        cancel: Cancel | None = None,
    ) -> UpdateResult:
        """Say how a job stands: `running` (also as acknowledgement and touch), `success` or `failed`.

        `failure_reason` comes from `map_reason`; `crc32` and `bytesize` are those of the whole trace as sent.
        """
        body: dict[str, Any] = {"info": info, "token": token, "state": state, "output": {}}
        if failure_reason:
            body["failure_reason"] = failure_reason
        if exit_code:
            body["exit_code"] = exit_code
        if crc32 is not None:
            body["checksum"] = body["output"]["checksum"] = f"crc32:{crc32:08x}"
        if bytesize is not None:
            body["output"]["bytesize"] = bytesize
        call = Call(
            endpoint="update_job",
            method="PUT",
            template="jobs/{id}",
            path=f"jobs/{job_id:d}",
            headers=((b"JOB-TOKEN", _ascii(token)), _JSON),
            body=_encoded(body),
            runner=runner,
        )
        return answers.updated(self._wire.send(call, cancel), call)

    def patch_trace(
        self,
        *,
        job_id: int,
        token: str,
        start: int,
        data: bytes,
        debug_trace: bool = False,
        runner: str = "",
        cancel: Cancel | None = None,
    ) -> PatchResult:
        """Send bytes `start` to `start + len(data)` of the trace as masked and repaired; never none, at most 1 MiB."""
        if not data:
            raise ValueError("an empty piece of trace is never sent")
        end = start + len(data)
        call = Call(
            endpoint="patch_trace",
            method="PATCH",
            template="jobs/{id}/trace",
            path=f"jobs/{job_id:d}/trace?debug_trace={'true' if debug_trace else 'false'}",
            headers=((b"JOB-TOKEN", _ascii(token)), _TRACE, (b"Content-Range", b"%d-%d" % (start, end - 1))),
            body=data,
            runner=runner,
        )
        return answers.patched(self._wire.send(call, cancel), call, end)

    def _call(
        self,
        endpoint: str,
        method: str,
        path: str,
        auth: Headers,
        body: Mapping[str, Any],
        *,
        runner: str = "",
        accept: bool = True,
    ) -> Call:
        headers = (*auth, _JSON, _ACCEPT) if accept else (*auth, _JSON)
        return Call(
            endpoint=endpoint,
            method=method,
            template=path,
            headers=headers,
            body=_encoded(body),
            runner=runner,
            needs_body=accept,
        )


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _runner_token(token: str) -> Headers:
    return ((b"RUNNER-TOKEN", _ascii(token)),)


def _ascii(token: str) -> bytes:
    """A token as a header's value; one with a line break in it would be a header of its own."""
    return "".join(token.split()).encode("ascii", "replace")
