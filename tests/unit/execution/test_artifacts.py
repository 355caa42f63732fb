"""What the payload says of artifacts becomes transfers of the job file."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.execution.job_inputs import payload_of, render_with


def transfers(variables: dict[str, str] | None = None, runner: dict[str, Any] | None = None, **payload: Any) -> Any:
    """By `do` and `on`, all transfers of a job."""
    rendered = render_with(payload_of(variables=variables or {}, **payload), **(runner or {}))
    stages = [stage for stage in rendered.job_file["stages"] if "transfer" in stage]
    return {(stage["transfer"]["do"], stage.get("on", "")): stage["transfer"] for stage in stages}


def uploads(variables: dict[str, str] | None = None, **artifact: Any) -> Any:
    """The upload after success of one artifact."""
    found = transfers(variables, artifacts=[{"paths": ["x"], **artifact}])
    return found["upload_artifacts", "success"]


def test_words_of_the_job_are_expanded_and_gitlabs_are_not() -> None:
    (item,) = uploads(
        {"WHERE": "dist", "NAME": "n"}, name="$NAME-1", paths=["$WHERE/*"], exclude=["$WHERE/x"],
        expire_in="1 $NAME", artifact_format="zip", artifact_type="archive",
    )["items"]  # fmt: skip
    assert item == {
        "name": "n-1", "paths": ["dist/*"], "exclude": ["dist/x"], "untracked": False, "format": "zip",
        "type": "archive", "expire_in": "1 n",
    }  # fmt: skip


def test_what_no_file_system_holds_is_taken_out() -> None:
    (item,) = uploads(paths=["a\0b", "\ud800"])["items"]
    assert item["paths"] == ["ab", "\ufffd"]


@pytest.mark.parametrize(
    ("when", "after"),
    [("on_success", ["success"]), ("", ["success"]), ("on_failure", ["failure"]), ("always", ["success", "failure"])],
)
def test_when_chooses_the_stages(when: str, after: list[str]) -> None:
    found = transfers(artifacts=[{"paths": ["x"], "when": when}])
    assert [on for _, on in found] == after


def test_an_artifact_that_names_nothing_makes_no_stage() -> None:
    assert transfers(artifacts=[{"name": "x"}]) == {}
    assert ("upload_artifacts", "success") in transfers(artifacts=[{"untracked": True}])


def test_variables_set_level_and_progress() -> None:
    transfer = uploads({"ARTIFACT_COMPRESSION_LEVEL": "Slowest", "TRANSFER_METER_FREQUENCY": "2s"})
    assert (transfer["level"], transfer["meter_s"]) == ("slowest", 2.0)
    transfer = uploads({"ARTIFACT_COMPRESSION_LEVEL": "9", "TRANSFER_METER_FREQUENCY": "-1s"})
    assert (transfer["level"], transfer["meter_s"]) == ("default", 0.0)


def test_the_runner_sets_address_limits_and_tls() -> None:
    runner = {
        "server_url": "https://gitlab.example.com/ci/", "clone_url": "https://elsewhere.example.com",
        "artifact_upload_timeout_s": 60.0, "artifact_header_timeout_s": 5.0, "tls_ca": "PEM",
    }  # fmt: skip
    found = transfers(runner=runner, artifacts=[{"paths": ["x"]}])["upload_artifacts", "success"]
    assert found["api"] == "https://gitlab.example.com/api/v4/"
    assert (found["timeout_s"], found["header_timeout_s"]) == (60.0, 5.0)
    assert found["tls"] == {"ca": "PEM", "cert": "", "key": ""}


def test_proxies_of_the_job_reach_the_transfer() -> None:
    found = uploads({"https_proxy": "http://proxy:1", "NO_PROXY": "x", "OTHER": "y"})
    assert found["environment"] == {"NO_PROXY": "x", "https_proxy": "http://proxy:1"}


def test_dependencies_without_a_file_are_skipped() -> None:
    dependencies = [
        {"id": 1, "token": "one", "name": "a", "artifacts_file": {"filename": "a.zip", "size": 5}},
        {"id": 2, "token": "two", "name": "b"},
    ]
    found = transfers(dependencies=dependencies)["download_artifacts", ""]
    assert found["items"] == [{"id": 1, "token": "one", "name": "a", "filename": "a.zip", "size": 5}]
    assert (found["direct"], found["keep_links"]) == (True, False)
    assert transfers(dependencies=dependencies[1:]) == {}


def test_flags_and_variables_of_downloads() -> None:
    dependencies = [{"id": 1, "token": "one", "artifacts_file": {"filename": "a.zip"}}]
    variables = {"FF_USE_DIRECT_DOWNLOAD": "false", "FLEET_KEEP_OUTWARD_LINKS": "true"}
    found = transfers(variables, dependencies=dependencies)["download_artifacts", ""]
    assert (found["direct"], found["keep_links"]) == (False, True)


def test_a_provenance_statement_names_variables_and_never_values() -> None:
    assert uploads()["metadata"] is None
    found = uploads({"RUNNER_GENERATE_ARTIFACTS_METADATA": "true", "KEY": "value-of-key"})["metadata"]
    assert found["predicate"]["buildDefinition"]["externalParameters"]["KEY"] == ""
    assert "value-of-key" not in repr(found)


def test_tokens_are_in_no_repr() -> None:
    rendered = render_with(payload_of(artifacts=[{"paths": ["x"]}]))
    token = rendered.job_file["stages"][-2]["transfer"]["token"]
    assert len(token) > 10
    assert token not in repr(rendered)
