"""Vault and GitLab's own secrets manager, asked through the hook over real sockets."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from typing import Any

import pytest
import trustme

from fleet.runtime.providers import Plugins
from fleet.sdk import (
    AwsSecret,
    GitLabSecret,
    SecretDenied,
    SecretError,
    SecretNotFound,
    SecretRequest,
    SecretUnavailable,
    VaultSecret,
)
from tests.contract.secrets.vault import Fault, PretendVault

PATH, FIELD = "production/db", "password"


@pytest.fixture
def jwt() -> str:
    return ".".join(secrets.token_urlsafe(30) for _ in range(3))


@pytest.fixture
def word() -> str:
    return secrets.token_hex(16)


@pytest.fixture
def vault(jwt, word):
    server = PretendVault(
        kv2={f"ops/kv/data/{PATH}": {FIELD: word, "port": 5432, "on": True, "list": [1, "a"], "none": None}},
        kv1={f"old/{PATH}": {FIELD: word}, "ssh/creds/deploy": {FIELD: word}},
    )
    server.allow(jwt, role="deploy")
    with server:
        yield server
    assert server.breaches == []


def ask(vault: PretendVault, jwt: str, **changes: Any) -> str:
    given = {
        "variable": "DB", "url": vault.url, "auth_data": {"jwt": jwt, "role": "deploy"}, "engine_path": "ops/kv",
        "path": PATH, "field": FIELD, "timeout_s": 5.0,
    }  # fmt: skip
    return fetch(VaultSecret(**(given | changes)))


def fetch(request: SecretRequest) -> str:
    return Plugins().secret(request).text


def refusal(kind: type[SecretError], vault: PretendVault, jwt: str, **changes: Any) -> str:
    with pytest.raises(SecretError) as found:
        ask(vault, jwt, **changes)
    assert type(found.value) is kind, found.value
    assert jwt not in str(found.value)
    assert not any(part in str(found.value) for part in jwt.split("."))
    return str(found.value)


# --- what is read ---


@pytest.mark.parametrize(
    "secret",
    [
        ("kv-v2", "ops/kv", PATH),
        ("kv-v2", "/ops/kv/", f"/{PATH}"),
        ("kv-v1", "old", PATH),
        ("generic", "ssh", "creds/deploy"),
    ],
)
def test_every_engine_gives_a_field(vault, jwt, word, secret):
    engine, mount, path = secret
    assert ask(vault, jwt, engine_name=engine, engine_path=mount, path=path) == word
    login, read = vault.calls
    assert (login.method, login.path, login.body) == ("POST", "/v1/auth/jwt/login", {"jwt": jwt, "role": "deploy"})
    assert read.headers["x-vault-token"] in vault.tokens
    assert "x-vault-namespace" not in read.headers


@pytest.mark.parametrize(("field", "text"), [("port", "5432"), ("on", "true"), ("list", '[1, "a"]')])
def test_what_is_no_text_becomes_json(vault, jwt, field, text):
    assert ask(vault, jwt, field=field) == text


def test_a_login_at_its_own_path_and_without_a_role(vault, jwt, word):
    vault.allow(jwt, mount="gitlab/ci")
    assert ask(vault, jwt, auth_path="gitlab/ci", auth_data={"jwt": jwt}) == word
    assert vault.calls[0].body == {"jwt": jwt}


def test_only_token_and_role_are_sent_to_a_login(vault, jwt, word):
    assert ask(vault, jwt, auth_data={"jwt": jwt, "role": "deploy", "other": "x"}) == word


def test_a_namespace_goes_with_both_calls(vault, jwt, word):
    vault.namespace = "team/a"
    assert ask(vault, jwt, namespace="team/a") == word
    assert [call.headers["x-vault-namespace"] for call in vault.calls] == ["team/a", "team/a"]


def test_odd_signs_in_a_path_stay_in_their_step(vault, jwt, word):
    vault.kv2["ops/kv/data/a%20b%3Fc/d%23e"] = {FIELD: word}
    assert ask(vault, jwt, path="a b?c/d#e") == word


# --- what is refused, and whose fault it is ---


def test_a_secret_or_field_that_is_not_there_is_not_found(vault, jwt):
    assert f"there is no secret nowhere in engine ops/kv at {vault.url}" in refusal(
        SecretNotFound, vault, jwt, path="nowhere"
    )
    assert "there is no field 'user'" in refusal(SecretNotFound, vault, jwt, field="user")
    assert "there is no field 'none'" in refusal(SecretNotFound, vault, jwt, field="none")


def test_a_token_that_may_not_read_is_denied(vault, jwt):
    vault.roles[("jwt", "deploy")].reads = ("elsewhere/",)
    assert "answered 403 to ops/kv/data/production/db (permission denied)" in refusal(SecretDenied, vault, jwt)


def test_what_a_refused_login_says_is_told_without_the_token(vault, jwt):
    said = refusal(SecretDenied, vault, jwt, auth_data={"jwt": jwt, "role": "nobody"})
    assert "role 'nobody' could not be found" in said
    vault.roles[("jwt", "deploy")].jwts.clear()
    assert "error validating token [MASKED]: invalid audience" in refusal(SecretDenied, vault, jwt)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"auth_name": "kerberos"}, "logs in by jwt"),
        ({"auth_data": {}}, "add `id_tokens` to the job"),
        ({"engine_name": "pki"}, "is not one of kv-v2, kv-v1, generic"),
        ({"path": "../../sys/health"}, "holds . or .."),
        ({"url": ""}, "VAULT_SERVER_URL"),
        ({"url": "vault.example.com"}, "VAULT_SERVER_URL"),
        ({"url": "https://vault:port"}, "VAULT_SERVER_URL"),
        ({"auth_path": "elsewhere", "namespace": "nowhere"}, "has no login at auth/elsewhere/login"),
    ],
)
def test_what_a_person_must_mend_is_denied_with_what_to_do(vault, jwt, changes, why):
    assert why in refusal(SecretDenied, vault, jwt, **changes)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 412])
def test_a_sick_server_is_unavailable(vault, jwt, status):
    vault.faults.append(Fault("/login", status=status))
    assert f"answered {status} to auth/jwt/login (local node not active)" in refusal(SecretUnavailable, vault, jwt)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/login", status=200, body=b"<html>"), Fault("/login", status=200, body=b"[]"),
        Fault("/login", status=200, body=b'{"auth": null}'), Fault("/login", status=302, body=b""),
        Fault(PATH, status=200, body=b'{"data": {"data": "text"}}'), Fault(PATH, status=200, body=b"[" * 100_000),
        Fault(PATH, status=200, body=b" " * (9 << 20)), Fault(PATH, status=204, body=b""),
    ],
)  # fmt: skip
def test_what_is_no_answer_of_vault_is_neither_the_jobs_fault_nor_repeated(vault, jwt, fault):
    vault.faults.append(fault)
    assert "<html>" not in refusal(SecretError, vault, jwt)


def test_nobody_there_is_unavailable(vault, jwt):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert "cannot be asked for auth/jwt/login" in refusal(SecretUnavailable, vault, jwt, url=url)


def test_a_server_that_says_nothing_costs_no_more_than_the_time_given(vault, jwt):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert "did not answer within 1 s" in refusal(SecretUnavailable, vault, jwt, url=url, timeout_s=1.0)
        assert time.monotonic() - began < 4


def test_a_server_that_drips_costs_no_more_than_the_time_given(vault, jwt):
    stop = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.1):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        began = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert "did not answer within 1 s" in refusal(SecretUnavailable, vault, jwt, url=url, timeout_s=1.0)
        assert time.monotonic() - began < 4
        stop.set()
        thread.join(5)


def test_an_address_with_a_password_is_never_repeated(vault, jwt):
    url = vault.url.replace("http://", "http://user:pass-word@")
    assert "pass-word" not in refusal(SecretNotFound, vault, jwt, url=url, path="nowhere")


# --- TLS ---


@pytest.fixture
def authority():
    return trustme.CA()


def test_the_runners_authority_is_trusted_and_no_other(authority, jwt, word, tmp_path):
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate = authority.issue_cert("127.0.0.1")
    files[0].write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    files[1].write_bytes(certificate.private_key_pem.bytes())
    server = PretendVault(certificate=(str(files[0]), str(files[1])), kv2={f"ops/kv/data/{PATH}": {FIELD: word}})
    server.allow(jwt, role="deploy")
    with server:
        assert ask(server, jwt, ca=authority.cert_pem.bytes().decode()) == word
        assert "certificate" in refusal(SecretUnavailable, server, jwt)
        assert len(server.calls) == 2
        assert "tls-ca-file" in refusal(SecretError, server, jwt, ca="nonsense")


# --- GitLab's own manager ---


def own(vault: PretendVault, jwt: str, **changes: Any) -> GitLabSecret:
    given = {
        "variable": "DB", "url": vault.url, "auth_path": "auth/pipeline_jwt/login", "jwt": jwt, "role": "all_pipelines",
        "engine_path": "secrets/kv", "path": "explicit/DB_PASS", "timeout_s": 5.0,
    }  # fmt: skip
    return GitLabSecret(**(given | changes))


def test_gitlabs_own_manager_gets_the_login_with_the_request(vault, jwt, word):
    vault.allow(jwt, mount="pipeline_jwt", role="all_pipelines")
    vault.kv2["secrets/kv/data/explicit/DB_PASS"] = {"value": word}
    assert fetch(own(vault, jwt)) == word
    (call,) = vault.calls
    assert call.method == "GET"
    assert jwt not in json.dumps(call.headers)


def test_gitlabs_own_manager_refuses_in_the_same_words(vault, jwt):
    with pytest.raises(SecretDenied, match="403"):
        fetch(own(vault, jwt))
    with pytest.raises(SecretDenied, match="no token or no role"):
        fetch(own(vault, jwt, role=""))
    vault.allow(jwt, mount="pipeline_jwt", role="all_pipelines")
    with pytest.raises(SecretNotFound, match="explicit/DB_PASS"):
        fetch(own(vault, jwt))


# --- plugins ---


def test_a_provider_nobody_knows_is_named_with_what_to_install():
    class Unheard(SecretRequest):
        provider = "unheard_of"

    with pytest.raises(SecretDenied, match="nobody on this runner fetches from unheard_of: install a plugin for it"):
        fetch(Unheard(variable="A"))


def test_no_request_shows_a_token(jwt):
    assert jwt not in repr(AwsSecret(variable="A", secret_id="b", jwt=jwt))
    assert jwt not in repr(VaultSecret(variable="A", url="u", path="p", field="f", auth_data={"jwt": jwt}))
    assert jwt not in repr(own(PretendVault(), jwt))
