"""The job's description: read generously, and never forgotten when it is broken."""

import json
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.gitlab.errors import PayloadError
from fleet.gitlab.payload import JobPayload

TOKEN = secrets.token_hex(16)
FULL = {
    "id": 7,
    "token": TOKEN,
    "allow_git_fetch": True,
    "brand_new": {"unknown": [1]},
    "job_info": {
        "name": "build",
        "stage": "test",
        "project_id": 3,
        "time_in_queue_seconds": 1.5,
        "project_jobs_running_on_instance_runners_count": "+Inf",
        "scoped_user_id": None,
    },
    "git_info": {
        "repo_url": f"https://gitlab-ci-token:{TOKEN}@a.example/p.git",
        "refspecs": ["+refs/heads/main:refs/remotes/origin/main"],
        "depth": 20,
        "ref_type": "branch",
        "protected": None,
    },
    "runner_info": {"timeout": 3600, "uuid": None},
    "inputs": [{"key": "who", "value": {"type": "array", "content": [1], "sensitive": False}}],
    "variables": [{"key": "A", "value": "1", "public": True, "masked": False, "file": False, "raw": True}],
    "steps": [{"name": "script", "script": ["echo hi"], "timeout": 3600, "when": "on_success", "allow_failure": False}],
    "image": {
        "name": "alpine",
        "entrypoint": ["sh"],
        "ports": [{"number": 80, "protocol": "http", "name": "web"}],
        "pull_policy": ["always"],
        "executor_opts": {"docker": {"user": 1000, "what": "ever"}},
    },
    "services": [{"name": "postgres:15", "alias": "db, postgres", "variables": [{"key": "P", "value": "x"}]}],
    "artifacts": [{"paths": ["out/"], "when": "always", "expire_in": "1 week", "artifact_format": "zip"}],
    "cache": [{"key": "k", "policy": "pull", "paths": ["c"], "fallback_keys": ["f"], "when": "on_success"}],
    "credentials": [{"type": "registry", "url": "r.example", "username": "u", "password": TOKEN}],
    "dependencies": [{"id": 5, "token": TOKEN, "name": "d", "artifacts_file": {"filename": "a.zip", "size": 3}}],
    "features": {
        "trace_sections": True,
        "token_mask_prefixes": ["glpat-"],
        "failure_reasons": ["image_pull_failure"],
        "tracing": {"trace_id": "t"},
    },
    "secrets": {"DB": {"vault": {"server": {"url": "v", "auth": {"name": "jwt", "data": {"jwt": "x"}}}, "field": "f"}}},
    "hooks": [{"name": "pre_get_sources_script", "script": ["a"]}],
    "run": None,
    "policy_options": {"execution_policy_job": True, "policy_name": "p"},
    "suspend_options": None,
}


def parse(document):
    return JobPayload.parse(json.dumps(document).encode())


def broken(raw):
    with pytest.raises(PayloadError) as caught:
        JobPayload.parse(raw)
    return caught.value


def test_everything_in_it_is_read():
    job = parse(FULL)
    assert job.id == 7
    assert job.token == TOKEN
    assert job.job_info.project_jobs_running_on_instance_runners_count == "+Inf"
    assert job.git_info.depth == 20
    assert job.git_info.protected is None
    assert job.runner_info.timeout_s == 3600
    assert job.inputs[0].value.content == [1]
    assert job.variables[0].raw
    assert job.steps[0].script == ("echo hi",)
    assert job.image.executor_opts == {"docker": {"user": 1000, "what": "ever"}}
    assert job.image.ports[0].number == 80
    assert job.services[0].aliases == ("db", "postgres")
    assert job.services[0].variables[0].value == "x"
    assert job.artifacts[0].expire_in == "1 week"
    assert job.cache[0].fallback_keys == ("f",)
    assert job.credentials[0].password == TOKEN
    assert job.dependencies[0].artifacts_file.filename == "a.zip"
    assert job.features.failure_reasons == ("image_pull_failure",)
    assert job.secrets["DB"].providers == ("vault",)
    assert job.secrets["DB"].vault.server.auth.data == {"jwt": "x"}
    assert job.secrets["DB"].file
    assert job.hooks[0].script == ("a",)
    assert job.policy_options.policy_name == "p"
    assert job.suspend_options is None


def test_id_and_token_are_enough():
    job = parse({"id": 1, "token": "t"})
    assert job.steps == ()
    assert job.runner_info.timeout_s == 7200
    assert job.git_info.repo_object_format == "sha1"


@pytest.mark.parametrize("name", sorted(set(FULL) - {"id", "token"}))
def test_null_stands_for_absent(name):
    assert parse({"id": 1, "token": "t", name: None}) == parse({"id": 1, "token": "t"})


def test_nulls_inside_are_forgiven():
    job = parse(
        {
            "id": 1,
            "token": "t",
            "variables": [None, {"key": "A", "value": None}],
            "steps": [{"name": None, "script": None}, {"name": "s", "script": ["a", None]}],
            "image": {"name": None, "ports": None, "variables": None, "executor_opts": None},
            "features": {"failure_reasons": None},
        }
    )
    assert [each.value for each in job.variables] == [""]
    assert [each.script for each in job.steps] == [(), ("a", "")]


def test_numbers_and_texts_stand_for_each_other():
    job = parse(
        {
            "id": "12",
            "token": "t",
            "variables": [{"key": "A", "value": 5}],
            "git_info": {"depth": "50"},
            "job_info": {"project_jobs_running_on_instance_runners_count": 3},
            "runner_info": {"timeout": 0},
        }
    )
    assert (job.id, job.variables[0].value, job.git_info.depth) == (12, "5", 50)
    assert job.job_info.project_jobs_running_on_instance_runners_count == "3"
    assert job.runner_info.timeout_s == 7200


def test_nul_passes_and_broken_utf_8_is_mended():
    raw = b'{"id":1,"token":"t","steps":[{"name":"script","script":["a\\u0000b","\xff","\\ud800x","\\ud83d\\ude00"]}]}'
    script = JobPayload.parse(raw).steps[0].script
    assert script == ("a\0b", "\ufffd", "\ufffdx", "\U0001f600")
    assert all(line.encode() for line in script)


def test_ten_megabytes_of_variables_are_read():
    variables = [{"key": f"V{n}", "value": "x" * 1000, "masked": True} for n in range(10_000)]
    job = parse({"id": 1, "token": "t", "variables": variables})
    assert len(job.variables) == 10_000
    assert job.variables[-1].key == "V9999"


def test_a_wrong_field_is_named_and_the_job_is_not_forgotten():
    error = broken(json.dumps({**FULL, "variables": [{"key": "A"}, {"key": ["secret-value"]}]}).encode())
    assert error.field == "variables.1.key"
    assert (error.job_id, error.token) == (7, TOKEN)
    assert TOKEN not in str(error)
    assert "secret-value" not in str(error)


@pytest.mark.parametrize("cut", [1, 40, 400, 1500])
def test_a_truncated_payload_still_names_its_job(cut):
    error = broken(json.dumps(FULL).encode()[:-cut])
    assert (error.job_id, error.token) == (7, TOKEN)


def test_the_ids_of_inner_objects_are_not_the_jobs():
    raw = b'{"dependencies":[{"id":5,"token":"d"}],"id":7,"token":"t","x'
    assert (broken(raw).job_id, broken(raw).token) == (7, "t")
    assert broken(b'{"dependencies":[{"id":5,"token":"d"}],"to').job_id is None


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"<html>", b'"x"', b"{", b"{}", b'{"id":1}', b"[" * 100_000])
def test_what_is_no_job_is_an_error_of_ours(raw):
    error = broken(raw)
    assert error.token is None


@pytest.mark.parametrize("job_id", [0, -1, 1.5, "x", None, []])
def test_an_id_is_a_positive_whole_number(job_id):
    error = broken(json.dumps({"id": job_id, "token": "t"}).encode())
    assert (error.field, error.job_id, error.token) == ("id", None, "t")


def test_an_input_without_content_is_unreadable():
    error = broken(b'{"id":1,"token":"t","inputs":[{"key":"a","value":{"type":"string","content":null}}]}')
    assert error.field == "inputs.0.value.content"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_no_value_of_a_field_escapes_as_another_error(value):
    for name in FULL:
        raw = json.dumps({"id": 1, "token": "t", name: value}).encode()
        try:
            JobPayload.parse(raw)
        except PayloadError:
            continue


@given(st.integers(0, len(json.dumps(FULL))))
def test_wherever_it_is_cut_it_is_an_error_of_ours(cut):
    raw = json.dumps(FULL).encode()[:cut]
    if cut < len(json.dumps(FULL)):
        broken(raw)


def test_no_secret_is_shown():
    assert TOKEN not in repr(parse(FULL))
    assert "'x'" not in repr(parse(FULL).services)
