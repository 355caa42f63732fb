"""Azure Key Vault through Azure's own library, against strict stand-ins of its login and its vault, over TLS."""

from __future__ import annotations

import json
import secrets
import urllib.parse
from typing import Any

import pytest
import trustme

from fleet.sdk import AzureSecret, SecretDenied, SecretError, SecretNotFound, SecretUnavailable
from fleet_azure.secrets import fetch
from tests.contract.secrets.scripted import Answer, ScriptedServer

ACCESS = "access-" + secrets.token_hex(8)
TENANT, CLIENT = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
LOGIN_PATH = f"/{TENANT}/oauth2/v2.0/token"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    made = authority.issue_cert("127.0.0.1", "localhost")
    names = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    names[0].write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    names[1].write_bytes(made.private_key_pem.bytes())
    names[2].write_bytes(authority.cert_pem.bytes())
    return tuple(str(name) for name in names)


class Cloud:
    """One server that is both: where one logs in, and the vault."""

    def __init__(self, certificate: tuple[str, str, str]) -> None:
        self.server = ScriptedServer({}, certificate=certificate[:2])
        self.ca = certificate[2]
        self.login: list[Answer] = []
        self.vault: list[Answer] = []

    def start(self) -> None:
        url = self.server.url
        about = {
            "token_endpoint": f"{url}{LOGIN_PATH}", "authorization_endpoint": f"{url}/{TENANT}/authorize",
            "issuer": f"{url}/{TENANT}/v2.0",
        }  # fmt: skip
        asks = f'Bearer authorization="{url}/{TENANT}", resource="https://vault.azure.net"'
        token = {"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": ACCESS}
        self.login = [(200, {}, json.dumps(token).encode())]
        self.vault = [(401, {"WWW-Authenticate": asks}, b"")]
        self.server.answers = {
            f"/{TENANT}/v2.0/.well-known": [(200, {}, json.dumps(about).encode())],
            LOGIN_PATH: self.login,
            "/secrets/": self.vault,
        }

    def gives(self, value: str | None) -> None:
        whole = {"value": value, "id": f"{self.server.url}/secrets/db/0123", "attributes": {"enabled": True}}
        self.vault.append((200, {}, json.dumps(whole).encode()))

    def refuses(self, status: int, code: str) -> None:
        self.vault.append((status, {}, json.dumps({"error": {"code": code, "message": f"words of {code}"}}).encode()))

    def ask(self, **changes: Any) -> str:
        given = {
            "variable": "DB", "name": "db", "url": self.server.url, "client_id": CLIENT, "tenant_id": TENANT,
            "jwt": "a.b.c", "timeout_s": 10.0,
        }  # fmt: skip
        host = self.server.url.removeprefix("https://")
        trusted = {"connection_verify": self.ca}
        return fetch(
            AzureSecret(**(given | changes)),
            identity={"authority": host, "disable_instance_discovery": True} | trusted,
            vault={"verify_challenge_resource": False} | trusted,
        ).text

    def refusal(self, kind: type[SecretError], **changes: Any) -> str:
        with pytest.raises(SecretError) as found:
            self.ask(**changes)
        assert type(found.value) is kind, found.value
        return str(found.value)


@pytest.fixture
def cloud(certificate):
    made = Cloud(certificate)
    with made.server:
        made.start()
        yield made


def test_the_jobs_token_is_the_assertion_that_opens_the_vault(cloud):
    token, word = secrets.token_urlsafe(40), secrets.token_hex(8)
    cloud.gives(word)
    assert cloud.ask(jwt=token) == word
    (login,) = [call for call in cloud.server.calls if call.path == LOGIN_PATH]
    sent = dict(urllib.parse.parse_qsl(login.body.decode()))
    assert (sent["client_assertion"], sent["client_id"], sent["grant_type"]) == (token, CLIENT, "client_credentials")
    assert sent["scope"] == "https://vault.azure.net/.default"
    read = cloud.server.calls[-1]
    assert read.method == "GET"
    assert read.headers["authorization"] == f"Bearer {ACCESS}"
    assert not [call for call in cloud.server.calls if call is not login and token in str(call)]


@pytest.mark.parametrize(("version", "path"), [("", "/secrets/db/"), ("0123", "/secrets/db/0123")])
def test_a_version_is_asked_for_where_one_is_given(cloud, version, path):
    cloud.gives("word")
    assert cloud.ask(version=version) == "word"
    assert cloud.server.calls[-1].path.partition("?")[0] == path


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "SecretNotFound", SecretNotFound), (403, "Forbidden", SecretDenied), (400, "BadParameter", SecretDenied),
        (429, "Throttled", SecretUnavailable), (500, "InternalError", SecretUnavailable),
        (503, "Busy", SecretUnavailable),
    ],
)  # fmt: skip
def test_each_answer_has_its_kind(cloud, status, code, kind):
    cloud.refuses(status, code)
    assert f"words of {code}" in cloud.refusal(kind)


@pytest.mark.parametrize(("status", "kind"), [(400, SecretDenied), (401, SecretDenied), (503, SecretUnavailable)])
def test_a_token_that_is_not_taken(cloud, status, kind):
    cloud.login[:] = [(status, {}, b'{"error": "invalid_client", "error_description": "AADSTS700213: No matching"}')]
    assert f"secret db in {cloud.server.url}" in cloud.refusal(kind)


def test_a_secret_without_a_value_is_not_found(cloud):
    cloud.gives(None)
    assert "has no value" in cloud.refusal(SecretNotFound)


@pytest.mark.parametrize(("changes", "why"), [
    ({"jwt": ""}, "add `id_tokens`"), ({"tenant_id": "a/b"}, "Azure"),
    ({"url": ""}, "takes no such"),
])  # fmt: skip
def test_what_a_person_must_mend_is_denied(cloud, changes, why):
    assert why in cloud.refusal(SecretDenied, **changes)


def test_nobody_there_is_unavailable(cloud):
    assert "Azure did not answer" in cloud.refusal(SecretUnavailable, url="https://127.0.0.1:1")
