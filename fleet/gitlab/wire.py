"""One logical call to GitLab over HTTP: request id, connection, retries, what was seen.

Rule: a call ends in an `Answer` and never in an exception of httpx, the socket or TLS. It logs the endpoint, status
and times, and never a header, a body or an address with a query. What an answer means is for `fleet.gitlab.answers`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import random
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import httpx
import structlog

from fleet.gitlab import retry
from fleet.gitlab.cancel import Cancel
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.errors import TlsFileError
from fleet.gitlab.lines import Lines
from fleet.gitlab.proxy import proxy_for
from fleet.gitlab.sockets import Stopped, Waiting
from fleet.gitlab.tls import TlsFiles, TlsForJobs, TlsMaterial, chain_of, load

log = structlog.get_logger(__name__)

NO_ANSWER = -1
STOPPED = -2
UNUSABLE = -100
ANSWER_LIMIT_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds. Silence on a connection ends it; `whole_s` ends an answer that trickles."""

    connect_s: float = 30.0
    write_s: float = 30.0
    read_s: float = 60.0
    poll_s: float = 600.0  # GitLab holds a poll for 50 s and more
    whole_s: float = 3600.0


class Observe(Protocol):
    """Told once per logical call; a negative status stands for no answer."""

    def __call__(self, *, endpoint: str, method: str, status: int, seconds: float, runner: str) -> None: ...


class CountRetry(Protocol):
    """Told each time a request is sent again."""

    def __call__(self, *, path: str, method: str) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to be made. `endpoint` and `template` are its names in metrics and logs."""

    endpoint: str
    method: str
    template: str
    path: str = ""  # below /api/v4/; the template when empty
    headers: tuple[tuple[bytes, bytes], ...] = dataclasses.field(repr=False)
    body: bytes = dataclasses.field(repr=False)
    runner: str = ""
    is_poll: bool = False
    limit_bytes: int = ANSWER_LIMIT_BYTES
    needs_body: bool = False  # where the headers say it all, a body that breaks off does no harm
    wants_tls: bool = False  # for jobs


@dataclasses.dataclass(slots=True, kw_only=True)
class Answer:
    """What came back: a status of HTTP, or NO_ANSWER, STOPPED or UNUSABLE with the reason in `failure`.

    After NO_ANSWER `body` is what came before it broke; `seen_status` says what it would have been part of.
    """

    status: int
    request_id: str
    headers: httpx.Headers = dataclasses.field(default_factory=httpx.Headers, repr=False)
    body: bytes = dataclasses.field(default=b"", repr=False)
    failure: str = ""
    seen_status: int = 0
    tls: TlsForJobs = dataclasses.field(default_factory=TlsForJobs, repr=False)
    retriable_seen: bool = False
    retry_after_s: float | None = None


class _TooLarge(Exception):
    pass


class Wire:
    """The way to one server; safe for any number of threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        user_agent: str,
        now: Callable[[], datetime],
        environment: Mapping[str, str],
        certificate_directory: pathlib.Path | None,
        connection_max_age_s: float,
        timeouts: Timeouts,
        longest_wait_s: float,
        pause: Callable[[Cancel | None, float], bool],
        observe: Observe | None,
        count_retry: CountRetry | None,
    ) -> None:
        self.endpoint = endpoint
        self._now = now
        self._timeouts = timeouts
        self._longest_wait_s = longest_wait_s
        self._pause = pause
        self._observe = observe
        self._count_retry = count_retry
        self._chance = random.Random()
        self._files = TlsFiles.of(endpoint, certificate_directory)
        self._tls: TlsMaterial | None = None
        self._tls_lock = threading.Lock()
        url = endpoint.parsed
        self._lines = Lines(proxy=proxy_for(url, environment), max_age_s=connection_max_age_s)
        self._head = ((b"Host", url.netloc), (b"User-Agent", user_agent.encode("ascii", "replace")))
        self._url = functools.lru_cache(maxsize=1024)(self._url_of)  # the same few paths again and again

    def close(self) -> None:
        """Close the connections that are idle, and the others as they come back."""
        self._lines.close()

    def tls(self) -> TlsMaterial:
        """The TLS material as the files are now; raises `TlsFileError`."""
        held = self._tls
        if held is not None and held.mark == self._files.mark():
            return held
        with self._tls_lock:
            if self._tls is None or self._tls.mark != self._files.mark():
                self._tls = None
                self._tls = load(self._files)
            return self._tls

    def send(self, call: Call, cancel: Cancel | None = None) -> Answer:
        """Make the call, again where GitLab says "not now", and say what came of it."""
        started = time.monotonic()
        answer = self._insist(call, cancel)
        seconds = time.monotonic() - started
        if self._observe is not None:
            self._observe(
                endpoint=call.endpoint,
                method=call.method,
                status=answer.status,
                seconds=seconds,
                runner=call.runner,
            )
        if not 200 <= answer.status < 300:
            log.debug(
                "gitlab_did_not_agree",
                endpoint=call.endpoint,
                status=answer.status,
                failure=answer.failure,
                seconds=round(seconds, 3),
                request_id=answer.request_id,
            )
        return answer

    def _insist(self, call: Call, cancel: Cancel | None) -> Answer:
        request_id = uuid.uuid4().hex
        request = self._request(call, request_id)
        retriable_seen = False
        for attempt in range(1, retry.ATTEMPTS + 1):
            answer = self._attempt(call, request, request_id, cancel)
            answer.retriable_seen = retriable_seen
            if not retry.is_not_now(answer.status):
                return answer
            answer.retriable_seen = retriable_seen = True
            now = self._now()
            answer.retry_after_s = retry.asked_wait_s(answer.headers, now)
            wait_s = retry.wait_s(answer.headers, attempt=attempt, now=now, chance=self._chance)
            if attempt == retry.ATTEMPTS or wait_s > self._longest_wait_s:
                return answer
            log.info(
                "gitlab_asked_again",
                endpoint=call.endpoint,
                status=answer.status,
                attempt=attempt,
                wait_s=round(wait_s, 3),
                request_id=request_id,
            )
            if self._pause(cancel, wait_s):
                return answer
            if self._count_retry is not None:
                self._count_retry(path=call.template, method=call.method)
        raise AssertionError("the last attempt returns")

    def _attempt(self, call: Call, request: httpx.Request, request_id: str, cancel: Cancel | None) -> Answer:
        answer = Answer(status=NO_ANSWER, request_id=request_id)
        chunks: list[bytes] = []
        waiting = Waiting(cancel=cancel, deadline=time.monotonic() + self._timeouts.whole_s)
        try:
            waiting.check()
            tls = self.tls()
            with self._lines.lent(tls, waiting) as line:
                response = line.handle_request(request)
                answer.headers = response.headers
                answer.seen_status = response.status_code
                if not call.needs_body:
                    answer.status = answer.seen_status
                if call.wants_tls and answer.seen_status == 201:
                    answer.tls = _tls_for_jobs(tls, line.sock)
                _read(response, chunks, call.limit_bytes)
            answer.status = answer.seen_status
        except Stopped:
            answer.status, answer.failure = STOPPED, "stopped"
        except TlsFileError as exc:
            answer.status, answer.failure = UNUSABLE, str(exc)
        except _TooLarge:
            answer.failure = f"its answer is larger than {call.limit_bytes >> 20} MiB"
        except httpx.HTTPError as exc:
            answer.failure = str(exc) or type(exc).__name__
        answer.body = b"".join(chunks)
        return answer

    def _request(self, call: Call, request_id: str) -> httpx.Request:
        times = self._timeouts
        return httpx.Request(
            call.method,
            self._url(call.path or call.template),
            headers=[
                *self._head,
                *call.headers,
                (b"X-Request-Id", request_id.encode()),
                (b"Content-Length", b"%d" % len(call.body)),
            ],
            stream=httpx.ByteStream(call.body),
            extensions={
                "timeout": {
                    "connect": times.connect_s,
                    "write": times.write_s,
                    "read": times.poll_s if call.is_poll else times.read_s,
                    "pool": None,
                }
            },
        )

    def _url_of(self, path: str) -> httpx.URL:
        return httpx.URL(f"{self.endpoint.url}/api/v4/{path}")


def _tls_for_jobs(tls: TlsMaterial, sock: socket.socket | None) -> TlsForJobs:
    """As configured; without a CA file, what the system trusted here may be unknown to the job's machine."""
    found = tls.for_jobs
    if not found.ca and isinstance(sock, ssl.SSLSocket):
        found = dataclasses.replace(found, ca=chain_of(sock))
    return found


def _read(response: httpx.Response, chunks: list[bytes], limit_bytes: int) -> None:
    left = limit_bytes
    for chunk in response.iter_raw():
        left -= len(chunk)
        if left < 0:
            raise _TooLarge
        chunks.append(chunk)
