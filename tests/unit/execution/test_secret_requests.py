from __future__ import annotations

from typing import Any

import pytest

from fleet.execution.refused import JobRefused
from fleet.execution.secret_requests import request_of
from fleet.execution.variables import Variable, Variables
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.secrets import Secret
from fleet.sdk import AwsSecret, AzureSecret, GcpSecret, GitLabSecret, SecretRequest, VaultSecret

NAMED = {
    "V": "value", "JWT": "a-token", "CI_JOB_ID": "7", "CI_PROJECT_ID": "42", "CI_SERVER_HOST": "gitlab.invalid",
}  # fmt: skip
VARIABLES = Variables((Variable(key=key, value=value) for key, value in NAMED.items()), tmp="/tmp")


def request(**secret: Any) -> SecretRequest:
    return request_of("KEY", Secret.model_validate(secret), VARIABLES, ca="CERTIFICATE")


def test_every_text_of_a_vault_secret_is_expanded() -> None:
    found = request(
        vault={
            "server": {
                "url": "https://$V", "namespace": "n/$V",
                "auth": {"name": "jwt", "path": "p/$V", "data": {"jwt": "$JWT", "role": "r-$V", "n": 1, "no": None}},
            },
            "engine": {"name": "kv-v2", "path": "e/$V"}, "path": "s/${V}", "field": "f-$V",
        }
    )  # fmt: skip
    assert found == VaultSecret(
        variable="KEY", ca="CERTIFICATE", url="https://value", namespace="n/value", auth_name="jwt",
        auth_path="p/value",
        auth_data={"jwt": "a-token", "role": "r-value", "n": "1"}, engine_name="kv-v2", engine_path="e/value",
        path="s/value", field="f-value",
    )  # fmt: skip


def test_every_text_of_gitlabs_own_is_expanded_and_older_servers_send_a_mount() -> None:
    def of(**login: str) -> GitLabSecret:
        secret = {
            "server": {"url": "https://$V", "inline_auth": {"jwt": "$JWT", "role": "r-$V"} | login},
            "engine": {"name": "kv-v2", "path": "e/$V"}, "path": "p/$V", "field": "f-$V",
        }  # fmt: skip
        found = request(gitlab_secrets_manager=secret)
        assert isinstance(found, GitLabSecret)
        return found

    found = of(path="auth/$V/cel/login", auth_mount="ignored")
    assert (found.auth_path, found.jwt, found.role, found.url) == (
        "auth/value/cel/login", "a-token", "r-value", "https://value",
    )  # fmt: skip
    assert (found.engine_path, found.path, found.field) == ("e/value", "p/value", "f-value")
    assert of(auth_mount="pipeline_jwt").auth_path == "auth/pipeline_jwt/login"


def test_aws_takes_the_secrets_own_words_before_the_servers() -> None:
    server = {"region": "r1-$V", "jwt": "$JWT", "role_arn": "arn1:$V", "role_session_name": "s1-$V"}
    plain = request(aws_secrets_manager={"secret_id": "id-$V", "server": server})
    assert plain == AwsSecret(
        variable="KEY", ca="CERTIFICATE", secret_id="id-value", region="r1-value", role_arn="arn1:value",
        role_session_name="s1-value", jwt="a-token",
    )  # fmt: skip
    own = {"region": "r2", "role_arn": "arn2", "role_session_name": "s2", "version_id": "$V", "version_stage": "$V"}
    found = request(aws_secrets_manager={"secret_id": "x", "field": "$V", "server": server} | own)
    assert isinstance(found, AwsSecret)
    assert (found.region, found.role_arn, found.role_session_name) == ("r2", "arn2", "s2")
    assert (found.version_id, found.version_stage, found.field) == ("value", "value", "value")


def test_an_aws_session_is_named_for_the_job_in_64_characters() -> None:
    found = request(aws_secrets_manager={"secret_id": "x"})
    assert isinstance(found, AwsSecret)
    assert found.role_session_name == "7-42-gitlab.invalid"
    long = request(aws_secrets_manager={"secret_id": "x", "role_session_name": "x" * 100})
    assert isinstance(long, AwsSecret)
    assert long.role_session_name == "x" * 64


def test_every_text_of_a_gcp_secret_is_expanded() -> None:
    server = {
        "project_number": "1$V", "workload_identity_federation_pool_id": "pool-$V",
        "workload_identity_federation_provider_id": "provider-$V", "jwt": "$JWT",
    }  # fmt: skip
    assert request(gcp_secret_manager={"name": "n-$V", "server": server}) == GcpSecret(
        variable="KEY", ca="CERTIFICATE", name="n-value", version="latest", project_number="1value",
        pool_id="pool-value", provider_id="provider-value", jwt="a-token",
    )  # fmt: skip


def test_every_text_of_an_azure_secret_is_expanded() -> None:
    server = {"client_id": "c-$V", "tenant_id": "t-$V", "jwt": "$JWT", "url": "https://$V"}
    assert request(azure_key_vault={"name": "n-$V", "version": "v-$V", "server": server}) == AzureSecret(
        variable="KEY", ca="CERTIFICATE", name="n-value", version="v-value", url="https://value", client_id="c-value",
        tenant_id="t-value", jwt="a-token",
    )  # fmt: skip


@pytest.mark.parametrize("secret", [{}, {"akeyless": {}}, {"vault": {}, "azure_key_vault": {}}])
def test_anything_but_one_provider_is_refused(secret: dict[str, Any]) -> None:
    with pytest.raises(JobRefused, match="it must be one of vault, gcp_secret_manager") as found:
        request(**secret)
    assert found.value.reason is FailureReason.RUNNER_CONFIGURATION_ERROR
