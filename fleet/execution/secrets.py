"""Fetches the secrets of a job before it is rendered, and makes variables of them.

Rule: here and in the job file alone is a value; no row, no log and no line of the trace gets it. Each secret is a
variable that overrides the job's own, a file unless the job says otherwise, always masked, never expanded. Where
a manager was killed between this and the start it is fetched again; the lines of the trace name secrets and providers
only, so those that were frozen stay true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from fleet.execution.cleaning import clean
from fleet.execution.refused import JobRefused
from fleet.execution.secret_requests import request_of
from fleet.execution.timeouts import attempts
from fleet.execution.variables import Variable, Variables
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.payload import JobPayload
from fleet.gitlab.secrets import Secret
from fleet.sdk import SecretDenied, SecretError, SecretNotFound, SecretRequest, SecretUnavailable, SecretValue

log = structlog.get_logger(__name__)

Fetch = Callable[[SecretRequest], SecretValue]
ALL_S = 120.0  # all secrets of a job with all their attempts: the machine waits meanwhile
ONE_S = 30.0
WAIT_S = 1.0  # before the second attempt, doubled for each further one
WAIT_AT_MOST_S = 16.0
HIDDEN_FROM = 4  # a masked value of fewer characters may be a word of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What came of a job's secrets.

    Attributes:
        variables: with their values.
        lines: for the trace: which secret of which provider.
        refusal: why the job cannot run; None when all is well.
        began_at, ended_at: of the section in the trace.
        took_s: how long all of it took.
    """

    variables: tuple[Variable, ...] = field(repr=False)
    lines: tuple[str, ...]
    refusal: JobRefused | None
    began_at: datetime
    ended_at: datetime
    took_s: float


def resolve(
    payload: JobPayload,
    variables: Variables,
    *,
    flags: Mapping[str, bool],
    ca: str,
    fetch: Fetch,
    now: Callable[[], datetime],
) -> Resolved:
    """Fetch every secret of the job, one after the other, in at most `ALL_S` seconds.

    Args:
        payload: the job.
        variables: its variables, which the texts of the requests are expanded with.
        flags: feature flags.
        ca: certificates that the runner trusts, in PEM.
        fetch: asks the plugins; raises `SecretError`.
        now: for the section in the trace.
    """
    began_at, began = now(), time.monotonic()
    errand = _Errand(
        variables=variables,
        ca=ca,
        fetch=fetch,
        tries=attempts(variables.get("SECRETS_RETRIEVAL_ATTEMPTS")),
        may_miss=not flags["FF_SECRET_RESOLVING_FAILS_IF_MISSING"],
        until=began + ALL_S,
        hidden=_hidden(payload, variables),
    )
    refusal = None
    try:
        for key, secret in payload.secrets.items():
            errand.bring(clean(key), secret)
    except JobRefused as exc:
        refusal = exc
    return Resolved(
        variables=tuple(errand.found),
        lines=tuple(errand.lines),
        refusal=refusal,
        began_at=began_at,
        ended_at=now(),
        took_s=time.monotonic() - began,
    )


@dataclass(slots=True, kw_only=True)
class _Errand:
    """The secrets of one job, as they come in."""

    variables: Variables
    ca: str = field(repr=False)
    fetch: Fetch
    tries: int
    may_miss: bool
    until: float
    hidden: tuple[str, ...] = field(repr=False)
    found: list[Variable] = field(default_factory=list, repr=False)
    lines: list[str] = field(default_factory=list)

    def bring(self, key: str, secret: Secret) -> None:
        """One secret; raises `JobRefused` when the job cannot do without."""
        self.lines.append(f'Resolving secret "{key}"...')
        try:
            request = request_of(key, secret, self.variables, ca=self.ca)
        except JobRefused as exc:
            if not self.may_miss:
                raise
            self.lines.append(f"WARNING: {exc.message}: the job goes on without {key}")
            return
        self.lines.append(f'Using "{request.provider}" secret resolver...')
        self.hidden += tuple(_tokens(request))
        try:
            value = self._tried(request)
        except SecretNotFound as exc:
            if not self.may_miss:
                raise self._refused(key, request, exc) from None
            self.lines.append(f"WARNING: {self._shown(exc)}: the job goes on without {key}")
        except SecretError as exc:
            raise self._refused(key, request, exc) from None
        else:
            text = clean(value.text)
            self.hidden += (text,) if len(text) >= HIDDEN_FROM else ()
            self.found.append(Variable(key=key, value=text, file=secret.file, masked=True, raw=True))

    def _tried(self, request: SecretRequest) -> SecretValue:
        wait_s = WAIT_S
        for attempt in range(1, self.tries + 1):
            left_s = self.until - time.monotonic()
            if left_s <= 0:
                break
            try:
                return self.fetch(replace(request, timeout_s=min(ONE_S, left_s)))
            except SecretError as exc:
                log.warning(
                    "secret_not_fetched", variable=request.variable, provider=request.provider, attempt=attempt,
                    error=self._shown(exc),
                )  # fmt: skip
                if attempt == self.tries or self.until - time.monotonic() <= wait_s:
                    raise
                self.lines.append(f"WARNING: attempt {attempt} of {self.tries} failed: {self._shown(exc)}")
            time.sleep(wait_s)
            wait_s = min(WAIT_AT_MOST_S, wait_s * 2)
        raise SecretUnavailable(f"the secrets of this job were not there within {ALL_S:g} s")

    def _refused(self, key: str, request: SecretRequest, error: SecretError) -> JobRefused:
        return JobRefused(
            f"secret {key} of {request.provider} could not be fetched: {self._shown(error)}", reason=_reason_of(error)
        )

    def _shown(self, error: SecretError) -> str:
        """The error in words for the job's log: on one line, and without anything that is masked."""
        text = " ".join(str(error).split())
        for phrase in sorted(self.hidden, key=len, reverse=True):
            text = text.replace(phrase, "[MASKED]")
        return text


def _reason_of(error: SecretError) -> FailureReason:
    match error:
        case SecretDenied() | SecretNotFound():
            return FailureReason.RUNNER_CONFIGURATION_ERROR
        case SecretUnavailable():
            return FailureReason.RUNNER_EXTERNAL_DEPENDENCY_FAILURE
        case _:
            return FailureReason.RUNNER_SYSTEM_FAILURE


def _hidden(payload: JobPayload, variables: Variables) -> tuple[str, ...]:
    phrases = {variable.value for variable in variables.expanded() if variable.masked} | {payload.token}
    return tuple(phrase for phrase in phrases if len(phrase) >= HIDDEN_FROM)


def _tokens(request: SecretRequest) -> Iterator[str]:
    """What a request logs in with."""
    data = getattr(request, "auth_data", {})
    yield from (text for text in (getattr(request, "jwt", ""), data.get("jwt", "")) if len(text) >= HIDDEN_FROM)
