from __future__ import annotations

import dataclasses

import pytest

from fleet.execution.flags import DEFAULTS
from fleet.execution.layout import Layout
from fleet.execution.refused import JobRefused
from fleet.execution.variables import Variable, Variables, definitions, pairs
from tests.contract.execution.job_inputs import LEASE, RUNNER, payload_of

LAYOUT = Layout(builds="/b", project="/b/$p")


def variables_of(*given: Variable) -> Variables:
    return Variables(given, tmp="/b/p.tmp")


def listed(**changes: object) -> list[Variable]:
    inputs: dict[str, object] = {
        "payload": payload_of(), "runner": RUNNER, "lease": LEASE, "layout": LAYOUT, "flags": DEFAULTS,
    }  # fmt: skip
    return definitions(**(inputs | changes))  # type: ignore[arg-type]


def test_the_last_definition_wins() -> None:
    found = variables_of(
        Variable(key="A", value="1", file=True), Variable(key="B", value="$A"), Variable(key="A", value="2")
    )
    assert [(variable.key, variable.value) for variable in found.expanded()] == [("B", "2"), ("A", "2")]


def test_values_are_put_in_once_and_raw_ones_never_expanded() -> None:
    found = variables_of(
        Variable(key="A", value="$B"),
        Variable(key="B", value="$C"),
        Variable(key="C", value="end"),
        Variable(key="RAW", value="$C", raw=True),
        Variable(key="USES_RAW", value="<$RAW>"),
    )
    assert {variable.key: variable.value for variable in found.expanded()} == {
        "A": "$C", "B": "end", "C": "end", "RAW": "$C", "USES_RAW": "<$C>",
    }  # fmt: skip


def test_a_cycle_is_no_trouble() -> None:
    found = variables_of(Variable(key="A", value="a$A$B"), Variable(key="B", value="b$A"))
    assert found.get("A") == "aa$A$Bb$A"


def test_a_file_variable_is_worth_its_path_wherever_it_is_used() -> None:
    found = variables_of(
        Variable(key="F", value="content of $X", file=True),
        Variable(key="A", value="<$F>"),
        Variable(key="X", value="x"),
    )
    assert found.get("F") == "/b/p.tmp/F"
    assert found.get("A") == "</b/p.tmp/F>"
    assert next(iter(found.expanded())).value == "content of x"


def test_a_few_bytes_cannot_stand_for_gigabytes() -> None:
    found = variables_of(Variable(key="A", value="x" * 1_000_000), Variable(key="B", value="$A" * 1000))
    with pytest.raises(JobRefused, match="variable B refers"):
        found.expanded()
    with pytest.raises(JobRefused):
        found.get("B")
    spread = variables_of(
        Variable(key="A", value="x" * 1_000_000), *(Variable(key=f"B{n}", value="$A" * 10) for n in range(20))
    )
    with pytest.raises(JobRefused):
        spread.expanded()


def test_absent_variables_are_empty() -> None:
    assert variables_of().get("A") == ""
    assert variables_of().is_on("A", default=True)
    assert not variables_of(Variable(key="A", value=" false ")).is_on("A", default=True)
    assert variables_of(Variable(key="A", value="maybe")).is_on("A", default=True)


def test_the_order_is_gitlabs() -> None:
    payload = payload_of(
        variables=[{"key": "MINE", "value": "job"}, {"key": "FF_TIMESTAMPS", "value": "false"}],
        image={"name": "alpine"},
    )
    keys = [variable.key for variable in listed(payload=payload)]
    marks = ["FF_TIMESTAMPS", "CI_JOB_IMAGE", "CI_RUNNER_SHORT_TOKEN", "CI_BUILDS_DIR", "MINE", "CI_SHARED_ENVIRONMENT"]
    assert [keys.index(mark) for mark in marks] == sorted(keys.index(mark) for mark in marks)
    assert keys.count("FF_TIMESTAMPS") == 1


def test_the_job_beats_the_runners_environment_but_not_what_the_runner_knows_of_itself() -> None:
    runner = dataclasses.replace(RUNNER, environment=("A=runner", "B=runner", "broken", "=x", "C=a=b"))
    payload = payload_of(variables={"A": "job", "CI_RUNNER_VERSION": "job", "CI_PROJECT_DIR": "job"})
    found = Variables(listed(runner=runner, payload=payload), tmp="/t")
    assert [found.get(key) for key in ("A", "B", "C")] == ["job", "runner", "a=b"]
    assert found.get("CI_RUNNER_VERSION") == RUNNER.version
    assert found.get("CI_PROJECT_DIR") == "job"


def test_the_runner_says_where_and_as_what_the_job_runs() -> None:
    found = Variables(listed(), tmp="/t")
    assert {key: found.get(key) for key in ("CI_BUILDS_DIR", "CI_PROJECT_DIR", "CI_CONCURRENT_ID")} == {
        "CI_BUILDS_DIR": "/b", "CI_PROJECT_DIR": "/b/$p", "CI_CONCURRENT_ID": "3",
    }  # fmt: skip
    assert found.get("CI_CONCURRENT_PROJECT_ID") == "1"
    assert found.get("CI_JOB_TIMEOUT") == "3600"
    assert found.get("CI_SERVER") == "yes"
    assert found.get("CI_JOB_STATUS") == "running"
    assert found.get("RUNNER_TEMP_PROJECT_DIR") == "/b/$p.tmp"
    assert found.get("CI_SHARED_ENVIRONMENT") == "true"
    assert found.get("CI_DISPOSABLE_ENVIRONMENT") == ""


def test_a_job_without_a_time_out_has_two_hours() -> None:
    found = Variables(listed(payload=payload_of(runner_info={"timeout": 0})), tmp="/t")
    assert found.get("CI_JOB_TIMEOUT") == "7200"


def test_a_disposable_machine_is_called_so() -> None:
    found = Variables(listed(lease=dataclasses.replace(LEASE, disposable=True)), tmp="/t")
    assert found.get("CI_DISPOSABLE_ENVIRONMENT") == "true"
    assert found.get("CI_SHARED_ENVIRONMENT") == ""


def test_tls_files_are_there_when_there_is_something_in_them() -> None:
    found = {v.key: v for v in listed(runner=dataclasses.replace(RUNNER, tls_ca="PEM$A"))}
    assert found["CI_SERVER_TLS_CA_FILE"].file
    assert found["CI_SERVER_TLS_CA_FILE"].value == "PEM$A"
    assert "CI_SERVER_TLS_CERT_FILE" not in found


def test_entries_of_the_environment_are_parted_at_the_first_sign() -> None:
    assert list(pairs(("A=1=2", " B = x", "C", "=d", ""))) == [("A", "1=2"), ("B", " x")]
