from __future__ import annotations

import dataclasses
import json
import secrets
import time
from typing import Any

import pytest

from fleet.execution.jobfile import charge_prologue
from fleet.execution.refused import JobRefused
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.payload import JobPayload
from tests.contract.execution.job_inputs import LEASE, machine_at, payload_of, render_with, stage_named

PROJECT = "/home/ci/builds/abcdefghi/1/group/project"


def refusal(**changes: Any) -> JobRefused:
    with pytest.raises(JobRefused) as refused:
        render_with(payload_of(**changes))
    return refused.value


def test_a_job_file_says_what_the_agent_must_know() -> None:
    job_file = render_with(payload_of(), user="ci").job_file
    assert {key: job_file[key] for key in ("format", "lease", "job_id", "user", "shell", "login", "cwd")} == {
        "format": 1, "lease": "lease-1", "job_id": 4711, "user": None, "shell": "bash", "login": False,
        "cwd": "/home/ci/builds",
    }  # fmt: skip
    assert job_file["directories"][0] == {"path": PROJECT + ".tmp", "mode": 0o700}
    assert job_file["cleanup_paths"] == [PROJECT + ".tmp"]
    assert job_file["script_timeout_s"] is None
    assert json.loads(json.dumps(job_file)) == job_file


def test_the_stages_come_in_gitlabs_order_with_its_titles() -> None:
    steps = [{"name": name, "script": ["true"]} for name in ("script", "after_script", "release")]
    stages = render_with(payload_of(steps=steps)).job_file["stages"]
    assert [(stage["name"], stage["kind"], stage["title"]) for stage in stages] == [
        ("prepare_script", "prepare", "Preparing environment"),
        ("get_sources", "get_sources", "Getting source from Git repository"),
        ("step_script", "step", 'Executing "step_script" stage of the job script'),
        ("step_release", "step", 'Executing "step_release" stage of the job script'),
        ("after_script", "after_script", "Running after_script"),
        ("cleanup_file_variables", "cleanup", "Cleaning up project directory and file based variables"),
    ]
    keys = {
        "name", "kind", "script", "attempts", "before_retry", "timeout_s", "section", "title", "ignore_errors", "where",
        "exit_reason",
    }  # fmt: skip
    assert all(set(stage) == keys for stage in stages)


def test_nothing_to_do_is_an_empty_script() -> None:
    rendered = render_with(payload_of(script=[]))
    assert stage_named(rendered, "step_script")["script"] == ""
    assert stage_named(rendered, "after_script")["script"] == ""
    assert [stage["kind"] for stage in render_with(payload_of(steps=[])).job_file["stages"]] == [
        "prepare", "get_sources", "after_script", "cleanup",
    ]  # fmt: skip


def test_equal_inputs_give_equal_job_files() -> None:
    payload = payload_of(variables={"A": "1"})
    assert render_with(payload) == render_with(payload)


def test_time_outs_and_attempts_come_from_variables_and_settings() -> None:
    variables = {"RUNNER_SCRIPT_TIMEOUT": "10m", "RUNNER_AFTER_SCRIPT_TIMEOUT": "$AFTER", "AFTER": "30s"}
    payload = payload_of(variables=variables | {"GET_SOURCES_ATTEMPTS": "99", "AFTER_SCRIPT_IGNORE_ERRORS": "false"})
    rendered = render_with(payload, get_sources_timeout_s=60, prepare_timeout_s=5000)
    assert rendered.job_file["script_timeout_s"] == 600
    after = stage_named(rendered, "after_script")
    assert (after["timeout_s"], after["ignore_errors"]) == (30, False)
    sources = stage_named(rendered, "get_sources")
    assert (sources["timeout_s"], sources["attempts"]) == (60, 10)
    assert sources["before_retry"]
    assert (rendered.timeout_s, rendered.prepare_timeout_s) == (3600, None)


def test_a_time_out_of_zero_is_two_hours() -> None:
    assert render_with(payload_of(runner_info={"timeout": 0})).timeout_s == 7200
    assert render_with(payload_of(runner_info={"timeout": -5})).timeout_s == 7200


def test_only_file_variables_become_files_and_only_their_last_definition() -> None:
    variables = [
        {"key": "A", "value": "old", "file": True}, {"key": "A", "value": "new"},
        {"key": "KEY", "value": "first", "file": True}, {"key": "KEY", "value": "$A", "file": True},
    ]  # fmt: skip
    rendered = render_with(payload_of(variables=variables))
    assert rendered.job_file["files"] == [{"path": PROJECT + ".tmp/KEY", "mode": 0o600, "text": "new"}]
    assert f"export KEY='{PROJECT}.tmp/KEY'\n" in stage_named(rendered, "step_script")["script"]


@pytest.mark.parametrize("key", ["../../x", "a/b", "..", "", ".fleet", "x" * 300])
def test_a_file_variable_never_leaves_its_directory(key: str) -> None:
    rendered = render_with(payload_of(variables=[{"key": key, "value": "x", "file": True}]))
    assert rendered.job_file["files"] == []
    assert any("left out" in warning for warning in rendered.warnings)


def test_the_shell_is_bash_where_there_is_one() -> None:
    assert (
        render_with(payload_of(), machine=machine_at("/h", shells=("/bin/sh", "/bin/bash"))).job_file["shell"] == "bash"
    )
    assert render_with(payload_of(), machine=machine_at("/h", shells=("sh",))).job_file["shell"] == "sh"
    with pytest.raises(JobRefused, match="bash"):
        render_with(payload_of(), machine=machine_at("/h", shells=("sh",)), shell="bash")
    with pytest.raises(JobRefused, match="pwsh"):
        render_with(payload_of(), shell="pwsh")


def test_another_user_needs_root() -> None:
    assert render_with(payload_of(), user="other", machine=machine_at("/h", is_root=True)).job_file["user"] == "other"
    with pytest.raises(JobRefused, match="without root"):
        render_with(payload_of(), user="other")


@pytest.mark.parametrize(
    "changes",
    [
        {"run": '[{"name": "x"}]'},
        {"image": {"name": "x", "executor_opts": {"docker": {"privileged": True}}}},
        {"image": {"name": "x", "executor_opts": {"podman": {}}}},
        {"services": [{"name": "db", "executor_opts": {"docker": {"network": "x"}}}]},
    ],
)
def test_what_is_not_supported_is_refused_with_exit_code_3(changes: dict[str, Any]) -> None:
    refused = refusal(**changes)
    assert (refused.reason, refused.exit_code) == (FailureReason.RUNNER_SYSTEM_FAILURE, 3)
    assert "does not support" in refused.message


def test_images_and_services_are_ignored_as_the_shell_executor_does() -> None:
    image = {"name": "alpine", "executor_opts": {"docker": {"platform": "x", "user": 1}, "kubernetes": {"user": 1}}}
    rendered = render_with(payload_of(image=image, services=[{"name": "db"}], run="[]"))
    assert rendered.warnings == ()


def test_caches_are_restored_before_the_steps_and_saved_after_them() -> None:
    cache = [{"key": "k", "paths": ["x"]}, {"key": "f", "paths": ["y"], "when": "on_failure", "policy": "push"}]
    variables = {"RESTORE_CACHE_ATTEMPTS": "3"}
    stages = render_with(payload_of(cache=cache, variables=variables, after_script=["true"])).job_file["stages"]
    assert [
        (stage["name"], stage["kind"], stage["title"], stage.get("on")) for stage in stages if "transfer" in stage
    ] == [
        ("restore_cache", "restore_cache", "Restoring cache", None),
        ("archive_cache", "archive_cache", "Saving cache for successful job", "success"),
        ("archive_cache_on_failure", "archive_cache", "Saving cache for failed job", "failure"),
    ]
    assert [stage["kind"] for stage in stages] == [
        "prepare", "get_sources", "restore_cache", "step", "after_script", "archive_cache", "archive_cache", "cleanup",
    ]  # fmt: skip
    restore = stages[2]
    assert (restore["attempts"], restore["ignore_errors"], restore["transfer"]["is_told"]) == (3, True, True)
    assert restore["transfer"]["folder"] == "/home/ci/cache"
    assert [key["name"] for item in restore["transfer"]["items"] for key in item["keys"]] == ["k"]


def test_artifacts_are_fetched_before_the_steps_and_sent_after_them() -> None:
    payload = payload_of(
        artifacts=[{"paths": ["y"]}, {"paths": ["z"], "when": "always", "artifact_type": "junit"}],
        dependencies=[{"id": 1, "token": "t", "artifacts_file": {"filename": "a.zip"}}],
        variables={"ARTIFACT_DOWNLOAD_ATTEMPTS": "2"},
    )
    stages = render_with(payload).job_file["stages"]
    assert [(stage["name"], stage.get("on")) for stage in stages if "transfer" in stage] == [
        ("download_artifacts", None),
        ("upload_artifacts_on_success", "success"),
        ("upload_artifacts_on_failure", "failure"),
    ]
    fetched, sent, sent_after_failure = (stage for stage in stages if "transfer" in stage)
    assert (fetched["attempts"], fetched["title"]) == (2, "Downloading artifacts")
    assert sent["title"] == "Uploading artifacts for successful job"
    assert [item["paths"] for item in sent["transfer"]["items"]] == [["y"], ["z"]]
    assert [item["type"] for item in sent_after_failure["transfer"]["items"]] == ["junit"]
    kinds = [stage["kind"] for stage in stages]
    assert kinds.index("get_sources") < kinds.index("download_artifacts") < kinds.index("step")
    assert kinds.index("after_script") < kinds.index("upload_artifacts") < kinds.index("cleanup")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GIT_STRATEGY", "svn"), ("GIT_SUBMODULE_STRATEGY", "deep"), ("GIT_SUBMODULE_DEPTH", "x"),
        ("GIT_CLONE_PATH", "/etc"),
    ],
)  # fmt: skip
def test_wishes_nobody_can_read_are_the_jobs_configuration_error(variable: str, value: str) -> None:
    refused = refusal(variables=[{"key": variable, "value": value}])
    assert refused.reason is FailureReason.RUNNER_CONFIGURATION_ERROR
    assert variable in refused.message


def test_nul_and_broken_unicode_are_taken_out_and_said() -> None:
    steps = [{"name": "script", "script": ["echo a\0b", "echo \ud83d\ude00 \ud800"]}]
    variables = [{"key": "A", "value": "x\0y"}, {"key": "FINE", "value": "é"}]
    payload = payload_of()
    payload = payload.model_copy(
        update={
            "steps": tuple(payload.steps[0].model_copy(update=step) for step in steps),
            "variables": tuple(payload.variables[0].model_copy(update=variable) for variable in variables),
        }
    )
    rendered = render_with(payload)
    script = stage_named(rendered, "step_script")["script"]
    assert "echo ab\n" in script
    assert "echo \U0001f600 \ufffd\n" in script
    assert "export A='xy'\n" in script
    assert [warning.split(":")[0] for warning in rendered.warnings] == ["variable A", "step script"]
    assert json.dumps(rendered.job_file, ensure_ascii=False).encode("utf-8")


def test_names_no_shell_takes_are_left_out_and_said() -> None:
    rendered = render_with(payload_of(variables={"a-b": "1", "1x": "2", "": "3", "fine_1": "4", "UID": "5"}))
    script = stage_named(rendered, "step_script")["script"]
    assert "export fine_1='4'" in script
    assert all(f"{name}=" not in script for name in ("a-b", "1x", "UID"))
    assert len(rendered.warnings) == 4


def test_the_agent_says_how_the_job_stands_not_the_variables() -> None:
    rendered = render_with(payload_of(variables={"CI_JOB_STATUS": "mine"}))
    assert all("export CI_JOB_STATUS" not in stage["script"] for stage in rendered.job_file["stages"])


def test_masks_are_every_secret_the_longest_first() -> None:
    token = secrets.token_hex(10) + "/x"
    variables = [
        {"key": "SHORT", "value": "s", "masked": True}, {"key": "EMPTY", "value": "", "masked": True},
        {"key": "LINES", "value": "one\ntwo " + "x" * 60, "masked": True}, {"key": "OPEN", "value": "open"},
        {"key": "EXPANDED", "value": "<$OPEN>", "masked": True},
        {"key": "TWICE", "value": "overridden", "masked": True}, {"key": "TWICE", "value": "final"},
    ]  # fmt: skip
    masks = render_with(payload_of(variables=variables, token=token)).job_file["trace"]["masks"]
    assert masks[0] == "one\ntwo " + "x" * 60
    assert set(masks) == {
        masks[0], "two " + "x" * 60, "s", "<open>", "<$OPEN>", "overridden", token, token.replace("/", "%2F"),
    }  # fmt: skip
    assert [len(mask) for mask in masks] == sorted((len(mask) for mask in masks), reverse=True)


def test_token_prefixes_are_gitlabs_and_the_payloads() -> None:
    payload = payload_of(features={"token_mask_prefixes": ["own-", "", "glpat-", " spaced- "]})
    prefixes = render_with(payload).job_file["trace"]["mask_prefixes"]
    assert prefixes[0] == "glpat-"
    assert prefixes[-2:] == ["own-", "spaced-"]
    assert {"glrt-", "glcbt-", "_gitlab_session="} <= set(prefixes)
    few = render_with(payload, feature_flags={"FF_MASK_ALL_DEFAULT_TOKENS": False}).job_file["trace"]["mask_prefixes"]
    assert few == ["glpat-", "own-", "spaced-"]


def test_the_trace_is_as_flags_and_settings_want_it() -> None:
    rendered = render_with(payload_of(variables={"FF_TIMESTAMPS": "false"}), output_limit_kib=1)
    assert rendered.changed_flags == ("FF_TIMESTAMPS:false",)
    trace = rendered.job_file["trace"]
    assert (trace["timestamps"], trace["sections"], trace["limit_bytes"]) == (False, True, 1024)
    assert "1024 bytes" in trace["limit_notice"]
    charged = charge_prologue(rendered.job_file, 100)
    assert charged["trace"]["limit_bytes"] == 924
    assert trace["limit_bytes"] == 1024
    assert charge_prologue(rendered.job_file, 5000)["trace"]["limit_bytes"] == 0


def test_the_runners_environment_can_set_flags_below_the_job() -> None:
    payload = payload_of(variables={"FF_TIMESTAMPS": "true"})
    environment = ("FF_TIMESTAMPS=false", "FF_SCRIPT_SECTIONS=true")
    assert render_with(payload, environment=environment).changed_flags == ("FF_SCRIPT_SECTIONS:true",)


def test_ten_megabytes_of_variables_are_rendered_in_seconds() -> None:
    variables = {f"V{index}": "it's $A " + "x'y$" * 220 for index in range(12_000)} | {"A": "x"}
    payload = payload_of(variables=variables)
    began = time.perf_counter()
    rendered = render_with(payload)
    assert time.perf_counter() - began < 30
    assert any("too large for the environment" in warning for warning in rendered.warnings)


def test_secrets_are_in_no_repr() -> None:
    secret = secrets.token_hex(20)
    rendered = render_with(
        payload_of(token=secret, variables={"A": secret}), environment=(f"B={secret}",), pre_build_script=secret
    )
    assert secret not in repr(rendered)


def test_an_empty_directory_has_a_name_of_its_own() -> None:
    rendered = render_with(payload_of(variables=[{"key": "GIT_STRATEGY", "value": "empty"}]))
    assert f"export CI_PROJECT_DIR='{PROJECT}-empty'\n" in stage_named(rendered, "step_script")["script"]
    assert rendered.job_file["cleanup_paths"] == [PROJECT + "-empty.tmp"]


def test_a_clone_path_may_use_variables() -> None:
    variables = {"GIT_CLONE_PATH": "$CI_BUILDS_DIR/own/$CI_CONCURRENT_ID", "F": "x"}
    rendered = render_with(payload_of(variables=variables), custom_build_dir=True)
    assert "cd '/home/ci/builds/own/3'\n" in stage_named(rendered, "step_script")["script"]


def test_without_git_the_sources_stage_says_so_and_blames_the_machine() -> None:
    machine = machine_at("/h", git=None)
    stage = stage_named(render_with(payload_of(git_info={"sha": "a" * 40}), machine=machine), "get_sources")
    assert stage["exit_reason"] == "runner_system_failure"
    assert "git is not installed" in stage["script"]
    fine = stage_named(render_with(payload_of(), machine=machine), "get_sources")
    assert fine["exit_reason"] == "script_failure"


def test_release_lines_are_expanded_by_us() -> None:
    steps = [{"name": "release", "script": ["release-cli --name '$NAME'"]}]
    rendered = render_with(payload_of(steps=steps, variables={"NAME": "v1"}))
    assert "release-cli --name 'v1'\n" in stage_named(rendered, "step_release")["script"]


def test_any_lease_of_any_payload_can_be_rendered() -> None:
    empty = JobPayload.model_validate({"id": 1, "token": "x"})
    rendered = render_with(empty, lease=dataclasses.replace(LEASE, correlation_id="c"))
    assert rendered.sections is False
