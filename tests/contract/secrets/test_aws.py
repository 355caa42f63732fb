"""AWS Secrets Manager through the hook, against moto's server."""

from __future__ import annotations

import json
import secrets
import threading
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fleet.runtime.providers import Plugins
from fleet.sdk import AwsSecret, SecretDenied, SecretError, SecretNotFound, SecretUnavailable
from tests.contract.secrets.scripted import ScriptedServer

REGION = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/gitlab-job"


@pytest.fixture(scope="module")
def moto():
    threads = set(threading.enumerate())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)


@pytest.fixture
def aws(moto, monkeypatch):
    """The manager's own identity, and where AWS is."""
    at(moto, monkeypatch)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return boto3.client("secretsmanager", region_name=REGION, endpoint_url=moto)


def at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")


def kept(aws: Any, value: str | bytes) -> str:
    name = f"ci/{secrets.token_hex(6)}"
    which = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": value}
    aws.create_secret(Name=name, **which)
    return name


def fetch(**changes: Any) -> str:
    given = {"variable": "DB", "region": REGION, "timeout_s": 10.0}
    return Plugins().secret(AwsSecret(**(given | changes))).text


def refusal(kind: type[SecretError], **changes: Any) -> str:
    with pytest.raises(SecretError) as found:
        fetch(**changes)
    assert type(found.value) is kind, found.value
    return str(found.value)


def test_a_secret_is_read_whole_with_the_runners_identity(aws):
    word = secrets.token_hex(8)
    assert fetch(secret_id=kept(aws, word)) == word
    assert fetch(secret_id=kept(aws, "grüße\n".encode())) == "grüße\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("text", "word"), ("number", "5432"), ("big", "12345678901234567890"), ("float", "1.50"), ("on", "true")],
)
def test_a_field_of_a_json_object_is_text_as_it_is_written(aws, field, value):
    whole = '{"text": "word", "number": 5432, "big": 12345678901234567890, "float": 1.50, "on": true, "list": [1]}'
    assert fetch(secret_id=kept(aws, whole), field=field) == value


def test_a_version_is_read_by_id_or_by_stage(aws):
    name = kept(aws, "old")
    old = aws.describe_secret(SecretId=name)["VersionIdsToStages"]
    aws.put_secret_value(SecretId=name, SecretString="new")
    assert fetch(secret_id=name) == "new"
    assert fetch(secret_id=name, version_id=next(iter(old))) == "old"
    assert fetch(secret_id=name, version_stage="AWSPREVIOUS") == "old"


def test_a_role_is_taken_with_the_jobs_token_and_the_runner_needs_no_identity(moto, aws, monkeypatch):
    name = kept(aws, "word")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    token = secrets.token_urlsafe(40)
    assert fetch(secret_id=name, role_arn=ROLE, role_session_name="7-42-gitlab", jwt=token) == "word"
    assert "the runner has no AWS identity" in refusal(SecretDenied, secret_id=name)


def test_what_is_not_there_is_not_found(aws):
    assert "AWS says ResourceNotFoundException" in refusal(SecretNotFound, secret_id="ci/nowhere")
    assert "there is no field 'user'" in refusal(SecretNotFound, secret_id=kept(aws, "{}"), field="user")


@pytest.mark.parametrize(("changes", "why"), [
    ({"region": "", "secret_id": "x"}, "set AWS_REGION"),
    ({"secret_id": ""}, "AWS takes no such name"),
    ({"secret_id": "x", "jwt": "token"}, "AWS_ROLE_ARN is not set"),
    ({"secret_id": "x", "role_arn": ROLE}, "add `id_tokens` with AWS_ID_TOKEN"),
])  # fmt: skip
def test_what_a_person_must_mend_is_denied_with_what_to_do(aws, changes, why):
    assert why in refusal(SecretDenied, **changes)


@pytest.mark.parametrize(("value", "why"), [
    ("no json", "is no JSON object"), ("[1]", "is no JSON object"), ('{"f": [1]}', "neither a string, a number nor"),
    ('{"f": null}', "neither a string"),
])  # fmt: skip
def test_a_field_of_what_has_none_is_denied_without_the_value(aws, value, why):
    said = refusal(SecretDenied, secret_id=kept(aws, value), field="f")
    assert why in said
    assert value not in said


def test_what_is_no_text_is_refused_with_what_to_do(aws):
    assert "keep it as base64" in refusal(SecretError, secret_id=kept(aws, b"\xff\xfe"))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "AccessDeniedException", SecretDenied), (400, "ExpiredTokenException", SecretDenied),
        (400, "ThrottlingException", SecretUnavailable), (500, "InternalServiceError", SecretUnavailable),
        (503, "ServiceUnavailable", SecretUnavailable),
    ],
)  # fmt: skip
def test_each_answer_has_its_kind_and_is_asked_for_once(monkeypatch, status, code, kind):
    body = json.dumps({"__type": code, "message": "no words of importance"}).encode()
    with ScriptedServer({"": [(status, {"Content-Type": "application/x-amz-json-1.1"}, body)] * 5}) as server:
        at(server.url, monkeypatch)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        assert f"AWS says {code}: no words of importance" in refusal(kind, secret_id="x")
        assert len(server.calls) == 1


def test_the_token_goes_to_sts_unsigned_and_only_there(monkeypatch):
    token = secrets.token_urlsafe(40)
    keys = "".join(
        f"<{name}>{value}</{name}>"
        for name, value in {
            "AccessKeyId": "ASIAFAKE", "SecretAccessKey": "s", "SessionToken": "t",
            "Expiration": "2099-01-01T00:00:00Z",
        }.items()
    )  # fmt: skip
    taken = (
        "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
        f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    ).encode()
    answers = [(200, {"Content-Type": "text/xml"}, taken), (200, {}, b'{"SecretString": "word"}')]
    with ScriptedServer({"": answers}) as server:
        at(server.url, monkeypatch)
        assert fetch(secret_id="x", role_arn=ROLE, jwt=token, role_session_name="7-42") == "word"
        login, read = server.calls
        assert token in login.body.decode()
        assert "authorization" not in login.headers
        assert "Credential=ASIAFAKE/" in read.headers["authorization"]
        assert token not in read.body.decode()


def test_nobody_there_is_unavailable_within_the_time(monkeypatch):
    at("http://127.0.0.1:1", monkeypatch)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    assert "AWS did not answer" in refusal(SecretUnavailable, secret_id="x")
