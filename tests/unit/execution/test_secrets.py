from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.execution import secrets as fetching
from fleet.execution import trace_lines
from fleet.execution.jobfile import variables_of
from fleet.execution.masks import phrases
from fleet.execution.secrets import Resolved, resolve
from fleet.execution.variables import Variable
from fleet.sdk import SecretDenied, SecretError, SecretNotFound, SecretRequest, SecretUnavailable, SecretValue
from tests.contract.execution.job_inputs import LEASE, RUNNER, machine_at, payload_of, render_with

AT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
VAULT = {"vault": {"server": {"auth": {"data": {"jwt": "header.payload.mark"}}}, "path": "p", "field": "f"}}


class Source:
    """Answers in turn; an error is raised. Remembers the requests."""

    def __init__(self, *answers: str | SecretError) -> None:
        self.answers = list(answers)
        self.requests: list[SecretRequest] = []

    def __call__(self, request: SecretRequest) -> SecretValue:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, SecretError):
            raise answer
        return SecretValue(text=answer)


def resolved(fetch: Callable[[SecretRequest], SecretValue], **changes: Any) -> Resolved:
    payload = payload_of(**({"secrets": {"KEY": VAULT}} | changes))
    variables, flags = variables_of(payload=payload, runner=RUNNER, machine=machine_at("/home/ci"), lease=LEASE)
    return resolve(payload, variables, flags=flags, ca="CA", fetch=fetch, now=lambda: AT)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WAIT_S", 0.001)


def test_a_secret_becomes_a_file_that_is_masked_and_never_expanded() -> None:
    found = resolved(Source("$V")).variables
    assert found == (Variable(key="KEY", value="$V", file=True, masked=True, raw=True),)
    plain = resolved(Source("x"), secrets={"KEY": VAULT | {"file": False}}).variables
    assert [variable.file for variable in plain] == [False]


def test_what_no_shell_can_hold_is_taken_out() -> None:
    assert resolved(Source("a\0b\ud800")).variables[0].value == "ab\ufffd"


def test_a_request_gets_the_runners_authorities_and_no_more_than_the_time_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "ALL_S", 5.0)
    source = Source("x")
    resolved(source)
    (request,) = source.requests
    assert request.ca == "CA"
    assert 4 < request.timeout_s <= 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SecretDenied("x"), "runner_configuration_error"),
        (SecretNotFound("x"), "runner_configuration_error"),
        (SecretUnavailable("x"), "runner_external_dependency_failure"),
        (SecretError("x"), "runner_system_failure"),
    ],
)
def test_each_error_has_its_reason(error: SecretError, reason: str) -> None:
    refusal = resolved(Source(error)).refusal
    assert refusal is not None
    assert (str(refusal.reason), refusal.exit_code) == (reason, 0)
    assert refusal.message == "secret KEY of vault could not be fetched: x"


def test_one_attempt_is_made_unless_the_job_wants_more() -> None:
    source = Source(SecretUnavailable("x"), "y")
    assert resolved(source).refusal is not None
    assert len(source.requests) == 1


def test_attempts_end_with_the_first_value_and_are_told() -> None:
    source = Source(SecretUnavailable("no"), SecretDenied("later"), "y")
    found = resolved(source, variables={"SECRETS_RETRIEVAL_ATTEMPTS": "9"})
    assert found.refusal is None
    assert found.lines == (
        'Resolving secret "KEY"...',
        'Using "vault" secret resolver...',
        "WARNING: attempt 1 of 9 failed: no",
        "WARNING: attempt 2 of 9 failed: later",
    )


def test_all_attempts_together_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "ALL_S", 0.0)
    refusal = resolved(Source("x")).refusal
    assert refusal is not None
    assert "were not there within 0 s" in refusal.message


def test_the_first_secret_that_fails_ends_it() -> None:
    source = Source("x", SecretDenied("no"), "z")
    found = resolved(source, secrets=dict.fromkeys(("A", "B", "C"), VAULT))
    assert [variable.key for variable in found.variables] == ["A"]
    assert found.lines[-2:] == ('Resolving secret "B"...', 'Using "vault" secret resolver...')


def test_a_missing_one_is_passed_over_where_the_flag_is_off() -> None:
    off = {"FF_SECRET_RESOLVING_FAILS_IF_MISSING": "false"}
    found = resolved(Source(SecretNotFound("gone"), "x"), variables=off, secrets={"A": VAULT, "B": VAULT, "C": {}})
    assert found.refusal is None
    assert [variable.key for variable in found.variables] == ["B"]
    assert "WARNING: gone: the job goes on without A" in found.lines
    assert found.lines[-1].endswith("the job goes on without C")
    denied = resolved(Source(SecretDenied("no")), variables=off)
    assert denied.refusal is not None


def test_an_error_shows_neither_a_token_nor_a_masked_value_nor_another_secret() -> None:
    text = "header.payload.mark hidden-one value-of-a line\nbreak"
    masked = [{"key": "M", "value": "hidden-one", "masked": True}]
    found = resolved(Source("value-of-a", SecretDenied(text)), variables=masked, secrets={"A": VAULT, "B": VAULT})
    assert found.refusal is not None
    assert found.refusal.message.endswith("fetched: [MASKED] [MASKED] [MASKED] line break")


def test_no_repr_shows_a_value() -> None:
    found = resolved(Source("hidden-value"))
    assert "hidden-value" not in repr(found)
    assert "hidden-value" not in repr(SecretValue(text="hidden-value"))


def test_a_secret_beats_the_jobs_variable_and_not_the_runners_own_folder() -> None:
    payload = payload_of(variables={"KEY": "old"})
    given = [
        Variable(key=key, value="new", masked=True, raw=True)
        for key in ("KEY", "CI_RUNNER_VERSION", "RUNNER_TEMP_PROJECT_DIR")
    ]
    variables, _ = variables_of(payload=payload, runner=RUNNER, machine=machine_at("/home/ci"), lease=LEASE)
    assert variables.get("KEY") == "old"
    job_file = render_with(payload, secrets=given).job_file
    script = next(stage for stage in job_file["stages"] if stage["kind"] == "step")["script"]
    assert "export KEY='new'" in script
    assert "export CI_RUNNER_VERSION='new'" in script
    assert "RUNNER_TEMP_PROJECT_DIR='new'" not in script
    assert job_file["trace"]["masks"][-1] == "new"


def test_a_file_secret_is_a_file_of_the_job_and_its_masks() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n"
    given = [Variable(key="KEY", value=key, file=True, masked=True, raw=True)]
    job_file = render_with(payload_of(), secrets=given).job_file
    assert key in [entry["text"] for entry in job_file["files"]]
    masks = job_file["trace"]["masks"]
    assert {key, key.strip(), "MIIEvQIBADANBg", "-----BEGIN KEY-----", "-----END KEY-----"} <= set(masks)
    assert "short" not in masks


def test_a_value_of_many_lines_makes_a_bounded_number_of_masks() -> None:
    value = "\n".join(f"line number {number}" for number in range(5000))
    assert len(phrases(payload_of(), [Variable(key="A", value=value, masked=True)])) < 210


def test_the_section_names_secrets_before_the_executor_is_prepared() -> None:
    found = resolved(Source("hidden-value"))
    text = trace_lines.prologue(
        runner=RUNNER, rendered=render_with(payload_of()), machine=machine_at("/h"), at=AT, resolved=found
    ).decode()
    stamp = "2026-01-31T12:00:00.000000Z 00O "
    assert (
        f"{stamp}section_start:1769860800:resolve_secrets\r\x1b[0K\x1b[0K\x1b[36;1mResolving secrets\x1b[0;m\n"
        f'{stamp}Resolving secret "KEY"...\n'
        f'{stamp}Using "vault" secret resolver...\n'
        f"{stamp}section_end:1769860800:resolve_secrets\r\x1b[0K\n"
        f"{stamp}section_start:1769860800:prepare_executor"
    ) in text
    assert "hidden-value" not in text
    assert "section_" not in trace_lines.heading(runner=RUNNER, at=AT, resolved=found).decode()
