from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fleet.execution import trace_lines
from fleet.execution.jobfile import Rendered
from fleet.model.job import Outcome
from tests.contract.execution.job_inputs import RUNNER, machine_at, payload_of, render_with

AT = datetime(2026, 1, 31, 12, 0, 0, 20010, tzinfo=UTC)
STAMP = "2026-01-31T12:00:00.020010Z 00O "


def written(rendered: Rendered | None = None, **changes: object) -> str:
    found = rendered or render_with(payload_of())
    inputs: dict[str, object] = {"runner": RUNNER, "rendered": found, "machine": machine_at("/h"), "at": AT}
    return trace_lines.prologue(**(inputs | changes)).decode()  # type: ignore[arg-type]


def test_the_prologue_says_who_runs_the_job_and_where() -> None:
    rendered = render_with(payload_of(variables={"FF_SCRIPT_SECTIONS": "true", "a-b": "1"}))
    assert written(rendered, address=("internal ip: 10.0.0.1",)) == (
        f"{STAMP}Running with fleet 0.1.0\n"
        f"{STAMP}  on pool-a abcdefghi, system ID: s_0123456789ab\n"
        f"{STAMP}  feature flags: FF_SCRIPT_SECTIONS:true\n"
        f"{STAMP}section_start:1769860800:prepare_executor\r\x1b[0K\x1b[0K\x1b[36;1m"
        'Preparing the "instance" executor\x1b[0;m\n'
        f"{STAMP}Instance i-1 connected, internal ip: 10.0.0.1\n"
        f"{STAMP}\x1b[0;33mWARNING: {rendered.warnings[0]}\x1b[0;m\n"
        f"{STAMP}section_end:1769860800:prepare_executor\r\x1b[0K\n"
    )


def test_without_stamps_and_sections_there_are_plain_lines() -> None:
    payload = payload_of(variables={"FF_TIMESTAMPS": "false"}, features={"trace_sections": False})
    text = written(render_with(payload))
    assert "section_" not in text
    assert text.startswith("Running with fleet")
    assert not re.search(r"^\d{4}-", text, re.MULTILINE)
    with_sections = written(render_with(payload_of(variables={"FF_TIMESTAMPS": "false"})))
    assert with_sections.endswith("section_end:1769860800:prepare_executor\r\x1b[0K")


def test_the_section_tells_how_long_the_job_waited() -> None:
    text = written(waited_since=AT - timedelta(seconds=90))
    assert "section_start:1769860710:" in text
    assert "section_end:1769860800:" in text


def test_instants_are_in_utc_wherever_they_come_from() -> None:
    local = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert trace_lines.notice("x", at=local) == trace_lines.notice("x", at=AT)
    assert trace_lines.notice("x", at=AT).decode() == f"{STAMP}\x1b[0;33mx\x1b[0;m\n"


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Outcome(state="success"), "\x1b[32;1mJob succeeded\x1b[0;m"),
        (
            Outcome(state="failed", failure_reason="script_failure", exit_code=1, message="exit code 1"),
            "\x1b[31;1mERROR: Job failed: exit code 1\x1b[0;m",
        ),
        (
            Outcome(state="failed", failure_reason="runner_system_failure", message="the machine was lost"),
            "\x1b[31;1mERROR: Job failed (system failure): the machine was lost\x1b[0;m",
        ),
        (
            Outcome(state="failed", failure_reason="job_canceled"),
            "\x1b[31;1mERROR: Job failed: job_canceled\x1b[0;m",
        ),
    ],
)
def test_the_epilogue_says_how_it_ended(outcome: Outcome, line: str) -> None:
    assert trace_lines.epilogue(outcome=outcome, at=AT).decode() == f"{STAMP}{line}\n"
    assert trace_lines.epilogue(outcome=outcome, at=AT, timestamps=False).decode() == f"{line}\n"


def test_every_line_of_a_message_is_stamped_and_nothing_else_breaks_lines() -> None:
    outcome = Outcome(state="failed", message="one\ntwo")
    assert trace_lines.epilogue(outcome=outcome, at=AT).decode().count(STAMP) == 2
    runner = dataclasses.replace(RUNNER, name="two\nlines \ud800")
    text = trace_lines.heading(runner=runner, at=AT).decode()
    assert text.count("\n") == text.count(STAMP) == 2
