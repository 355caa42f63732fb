"""The contract of a place where a job's secrets lie: one request for one secret, and its value or a typed error.

The manager asks once a job, before anything of the job is on a machine; nothing of what it gets is kept in a row. A
request is complete: every text in it has its variables put in, and the credentials in it are the job's own (a token
that GitLab signed for this job), so a plugin needs no settings of its own. The manager's environment is asked for
credentials only where GitLab Runner does so too (`AwsSecret` without a role).

A hook `fleet_secret` answers the kinds that it knows, returns None for others, and raises one of these:

    SecretDenied        400, 401, 403 and whatever else a person must mend   -> runner_configuration_error
    SecretNotFound      404: no such secret, version or field               -> runner_configuration_error
    SecretUnavailable   5xx, no connection, no answer in time               -> runner_external_dependency_failure
    SecretError         anything else                                       -> runner_system_failure

Error texts are shown in the job's log. They name the server and the path, never a token, a value or a server's whole
answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretValue:
    """What a secret is worth.

    Attributes:
        text: the value as a text. What is no valid UTF-8 is a `SecretError` of whoever fetched it.
    """

    text: str = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRequest:
    """One secret of a job; its kind says which provider has it.

    Attributes:
        provider: GitLab's name of the provider, for logs.
        variable: the variable that will hold it, for messages.
        timeout_s: seconds after which the caller has no use for an answer; it bounds all calls together.
        ca: certificates in PEM that are trusted beside the system's; empty where there are none. It is what the runner
            trusts (`tls-ca-file`); services of a public cloud need not look at it.
    """

    provider: ClassVar[str] = ""

    variable: str
    timeout_s: float = 30.0
    ca: str = dataclasses.field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSecret(SecretRequest):
    """A field of a secret in HashiCorp Vault, or in what speaks its protocol.

    Attributes:
        url: of the server, without `/v1`.
        namespace: of Vault Enterprise; empty is the root.
        auth_name: how to log in; GitLab sends `jwt`.
        auth_path: where that is mounted, below `auth/`.
        auth_data: what logging in sends: `jwt`, and `role` where there is one.
        engine_name: `kv-v2`, `kv-v1` or `generic`.
        engine_path: where that is mounted.
        path: of the secret in the engine.
        field: which of its fields.
    """

    provider: ClassVar[str] = "vault"

    url: str
    namespace: str = ""
    auth_name: str = "jwt"
    auth_path: str = "jwt"
    auth_data: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}), repr=False)
    engine_name: str = "kv-v2"
    engine_path: str = ""
    path: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLabSecret(SecretRequest):
    """A secret of GitLab's own manager (OpenBao); each request carries its login.

    Attributes:
        url: of the OpenBao server.
        auth_path: the whole path of the login, such as `auth/pipeline_jwt/login`.
        jwt: the job's token.
        role: which role to log in for.
        engine_name: `kv-v2`, `kv-v1` or `generic`.
        engine_path: where that is mounted.
        path: of the secret in the engine.
        field: which of its fields.
    """

    provider: ClassVar[str] = "gitlab_secrets_manager"

    url: str
    auth_path: str
    jwt: str = dataclasses.field(repr=False)
    role: str
    engine_name: str = "kv-v2"
    engine_path: str = ""
    path: str
    field: str = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSecret(SecretRequest):
    """A secret in AWS Secrets Manager.

    Attributes:
        secret_id: name or ARN.
        version_id: empty is that of the stage.
        version_stage: empty is `AWSCURRENT`.
        field: a key of the JSON object that the secret is; empty is the whole secret.
        region: empty leaves it to the manager's environment.
        role_arn: the role to take with `jwt`; empty means the manager's own identity.
        role_session_name: at most 64 characters.
        jwt: the job's token, as web identity.
    """

    provider: ClassVar[str] = "aws_secrets_manager"

    secret_id: str
    version_id: str = ""
    version_stage: str = ""
    field: str = ""
    region: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    jwt: str = dataclasses.field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GcpSecret(SecretRequest):
    """A secret in Google Cloud's Secret Manager, by workload identity federation.

    Attributes:
        name: of the secret in the project, or its whole name `projects/P/secrets/S[/versions/V]`.
        version: `latest` or a number.
        project_number: of the project that has the pool.
        pool_id: of workload identities.
        provider_id: of the pool.
        jwt: the job's token.
    """

    provider: ClassVar[str] = "gcp_secret_manager"

    name: str
    version: str = "latest"
    project_number: str
    pool_id: str
    provider_id: str
    jwt: str = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSecret(SecretRequest):
    """A secret in an Azure Key Vault.

    Attributes:
        name: of the secret.
        version: empty is the newest.
        url: of the vault.
        client_id: of the application that trusts GitLab's tokens.
        tenant_id: where it is registered.
        jwt: the job's token, as client assertion.
    """

    provider: ClassVar[str] = "azure_key_vault"

    name: str
    version: str = ""
    url: str
    client_id: str
    tenant_id: str
    jwt: str = dataclasses.field(repr=False)
