"""Writes the request for a secret from what the payload says of it, with the job's variables put in.

Rule: pure. Exactly one provider; none, two, or one that is unknown is refused, because a job that runs without its
secret is not the job that its author wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleet.execution.refused import JobRefused, misconfigured
from fleet.execution.variables import Variables
from fleet.gitlab import secrets as given
from fleet.gitlab.secrets import Secret
from fleet.sdk import AwsSecret, AzureSecret, GcpSecret, GitLabSecret, SecretRequest, VaultSecret

SESSION = "${CI_JOB_ID}-${CI_PROJECT_ID}-${CI_SERVER_HOST}"
SESSION_AT_MOST = 64
Expand = Callable[[str], str]


def request_of(key: str, secret: Secret, variables: Variables, *, ca: str = "") -> SecretRequest:
    """The request for one secret; raises `JobRefused` when its provider is not one."""
    if len(secret.providers) != 1:
        raise _no_provider(key, secret)
    name = secret.providers[0]
    return _MAKERS[name](getattr(secret, name), variables.expand, {"variable": key, "ca": ca})


def _no_provider(key: str, secret: Secret) -> JobRefused:
    known = ", ".join(_MAKERS)
    named = (
        f"names {' and '.join(secret.providers)}" if secret.providers else "names no provider that this runner knows"
    )
    return misconfigured(f"secret {key} {named}: it must be one of {known}")


def _vault(of: given.Vault, expand: Expand, shared: dict[str, Any]) -> SecretRequest:
    auth = of.server.auth
    return VaultSecret(
        **shared,
        url=expand(of.server.url),
        namespace=expand(of.server.namespace),
        auth_name=expand(auth.name) or "jwt",
        auth_path=expand(auth.path) or "jwt",
        auth_data={name: expand(_text(value)) for name, value in auth.data.items() if value is not None},
        engine_name=expand(of.engine.name),
        engine_path=expand(of.engine.path),
        path=expand(of.path),
        field=expand(of.field),
    )


def _gitlab(of: given.GitLabSecretsManager, expand: Expand, shared: dict[str, Any]) -> SecretRequest:
    login = of.server.inline_auth
    return GitLabSecret(
        **shared,
        url=expand(of.server.url),
        # older servers send the mount alone
        auth_path=expand(login.path) or f"auth/{expand(login.auth_mount)}/login",
        jwt=expand(login.jwt),
        role=expand(login.role),
        engine_name=expand(of.engine.name),
        engine_path=expand(of.engine.path),
        path=expand(of.path),
        field=expand(of.field),
    )


def _aws(of: given.AwsSecretsManager, expand: Expand, shared: dict[str, Any]) -> SecretRequest:
    server = of.server
    session = of.role_session_name or server.role_session_name or SESSION
    return AwsSecret(
        **shared,
        secret_id=expand(of.secret_id),
        version_id=expand(of.version_id),
        version_stage=expand(of.version_stage),
        field=expand(of.field),
        region=expand(of.region) or expand(server.region),
        role_arn=expand(of.role_arn) or expand(server.role_arn),
        role_session_name=expand(session)[:SESSION_AT_MOST],
        jwt=expand(server.jwt),
    )


def _gcp(of: given.GcpSecretManager, expand: Expand, shared: dict[str, Any]) -> SecretRequest:
    return GcpSecret(
        **shared,
        name=expand(of.name),
        version=expand(of.version) or "latest",
        project_number=expand(of.server.project_number),
        pool_id=expand(of.server.workload_identity_federation_pool_id),
        provider_id=expand(of.server.workload_identity_federation_provider_id),
        jwt=expand(of.server.jwt),
    )


def _azure(of: given.AzureKeyVault, expand: Expand, shared: dict[str, Any]) -> SecretRequest:
    return AzureSecret(
        **shared,
        name=expand(of.name),
        version=expand(of.version),
        url=expand(of.server.url),
        client_id=expand(of.server.client_id),
        tenant_id=expand(of.server.tenant_id),
        jwt=expand(of.server.jwt),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


_MAKERS: dict[str, Callable[[Any, Expand, dict[str, Any]], SecretRequest]] = {
    "vault": _vault,
    "gcp_secret_manager": _gcp,
    "azure_key_vault": _azure,
    "aws_secrets_manager": _aws,
    "gitlab_secrets_manager": _gitlab,
}
