"""Google Cloud's Secret Manager through Google's own library, against strict stand-ins of STS and of the API."""

from __future__ import annotations

import base64
import json
import secrets
import urllib.parse
from typing import Any

import google_crc32c
import pytest

from fleet.sdk import GcpSecret, SecretDenied, SecretError, SecretNotFound, SecretUnavailable
from fleet_gcp.secrets import fetch, name_of
from tests.contract.secrets.scripted import ScriptedServer

ACCESS = "access-" + secrets.token_hex(8)
AUDIENCE = "//iam.googleapis.com/projects/42/locations/global/workloadIdentityPools/pool/providers/gitlab"
LOGIN = (200, {}, json.dumps({
    "access_token": ACCESS, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "token_type": "Bearer", "expires_in": 3600,
}).encode())  # fmt: skip
STS, API = "/v1/token", "/v1/projects/"


def secret(data: bytes, **more: Any) -> tuple[int, dict[str, str], bytes]:
    payload = {"data": base64.b64encode(data).decode(), "dataCrc32c": str(google_crc32c.value(data))} | more
    name = "projects/42/secrets/db/versions/3"
    return 200, {}, json.dumps({"name": name, "payload": payload}).encode()


def refused(code: int, status: str) -> tuple[int, dict[str, str], bytes]:
    error = {"code": code, "message": f"words of {status}", "status": status}
    return code, {}, json.dumps({"error": error}).encode()


def request(**changes: Any) -> GcpSecret:
    given = {
        "variable": "DB", "name": "db", "project_number": "42", "pool_id": "pool", "provider_id": "gitlab",
        "jwt": "a.b.c", "timeout_s": 5.0,
    }  # fmt: skip
    return GcpSecret(**(given | changes))


def ask(server: ScriptedServer, **changes: Any) -> str:
    return fetch(request(**changes), token_url=server.url + STS, endpoint=server.url).text


def refusal(kind: type[SecretError], sts: Any, api: Any = None, **changes: Any) -> str:
    with ScriptedServer({STS: [sts], API: [api]}) as server:
        with pytest.raises(SecretError) as found:
            ask(server, **changes)
        assert len(server.calls) <= (6 if api and api[0] == 401 else 2)  # the library logs in again, twice
    assert type(found.value) is kind, found.value
    return str(found.value)


def test_the_jobs_token_is_exchanged_and_opens_the_secret():
    token, word = secrets.token_urlsafe(40), secrets.token_hex(8)
    with ScriptedServer({STS: [LOGIN], API: [secret(word.encode())]}) as server:
        assert ask(server, jwt=token, version="3") == word
        login, read = server.calls
    assert (login.method, login.path) == ("POST", STS)
    assert dict(urllib.parse.parse_qsl(login.body.decode())) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": AUDIENCE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": token,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
    }
    assert (read.method, read.path.partition("?")[0]) == ("GET", "/v1/projects/42/secrets/db/versions/3:access")
    assert read.headers["authorization"] == f"Bearer {ACCESS}"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"name": "db"}, "projects/42/secrets/db/versions/latest"),
        ({"name": "db", "version": "7"}, "projects/42/secrets/db/versions/7"),
        ({"name": "projects/p/secrets/s", "version": "7"}, "projects/p/secrets/s/versions/7"),
        ({"name": "projects/p/secrets/s/versions/2", "version": "7"}, "projects/p/secrets/s/versions/2"),
    ],
)
def test_a_name_is_made_whole(given, name):
    assert name_of(request(**given)) == name


@pytest.mark.parametrize(
    ("sts", "kind"),
    [
        ((400, {}, b'{"error": "invalid_grant", "error_description": "The audience is wrong"}'), SecretDenied),
        ((403, {}, b'{"error": "unauthorized_client", "error_description": "no"}'), SecretDenied),
        ((503, {}, b"sorry"), SecretUnavailable),
    ],
)
def test_a_token_that_is_not_taken(sts, kind):
    assert "pool pool, provider gitlab of project 42" in refusal(kind, sts)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (404, "NOT_FOUND", SecretNotFound), (403, "PERMISSION_DENIED", SecretDenied),
        (400, "INVALID_ARGUMENT", SecretDenied),
        (401, "UNAUTHENTICATED", SecretDenied), (429, "RESOURCE_EXHAUSTED", SecretUnavailable),
        (500, "INTERNAL", SecretUnavailable), (503, "UNAVAILABLE", SecretUnavailable),
    ],
)  # fmt: skip
def test_each_answer_has_its_kind(code, status, kind):
    said = refusal(kind, LOGIN, refused(code, status))
    assert "secret projects/42/secrets/db/versions/latest" in said
    assert f"words of {status}" in said


def test_what_came_damaged_is_not_taken():
    assert "came damaged" in refusal(SecretUnavailable, LOGIN, secret(b"word", dataCrc32c="1"))


def test_what_is_no_text_is_refused_with_what_to_do():
    assert "keep it as base64" in refusal(SecretError, LOGIN, secret(b"\xff\xfe"))


def test_a_job_without_a_token_is_told_how_to_get_one():
    assert "add `id_tokens`" in refusal(SecretDenied, LOGIN, jwt="")


def test_nobody_there_is_unavailable():
    with pytest.raises(SecretUnavailable, match="did not answer"):
        fetch(request(), token_url="http://127.0.0.1:1/v1/token", endpoint="http://127.0.0.1:1")
