"""Where a job's secrets are to be fetched from: the `secrets` of the payload.

Rule: exactly one provider per secret; all texts may hold variables and are expanded by whoever resolves them.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fleet.gitlab.parts import Part


class Engine(Part):
    name: str = ""
    path: str = ""


class VaultAuth(Part):
    name: str = ""
    path: str = ""
    data: dict[str, Any] = Field(default_factory=dict, repr=False)


class VaultServer(Part):
    url: str = ""
    auth: VaultAuth = VaultAuth()
    namespace: str = ""


class Vault(Part):
    server: VaultServer = VaultServer()
    engine: Engine = Engine()
    path: str = ""
    field: str = ""


class GcpServer(Part):
    project_number: str = ""
    workload_identity_federation_pool_id: str = ""
    workload_identity_federation_provider_id: str = ""
    jwt: str = Field(default="", repr=False)


class GcpSecretManager(Part):
    name: str = ""
    version: str = ""
    server: GcpServer = GcpServer()


class AzureServer(Part):
    client_id: str = ""
    tenant_id: str = ""
    jwt: str = Field(default="", repr=False)
    url: str = ""


class AzureKeyVault(Part):
    name: str = ""
    version: str = ""
    server: AzureServer = AzureServer()


class AwsServer(Part):
    region: str = ""
    jwt: str = Field(default="", repr=False)
    role_arn: str = ""
    role_session_name: str = ""


class AwsSecretsManager(Part):
    secret_id: str = ""
    version_id: str = ""
    version_stage: str = ""
    field: str = ""
    region: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    server: AwsServer = AwsServer()


class InlineAuth(Part):
    path: str = ""
    jwt: str = Field(default="", repr=False)
    role: str = ""
    auth_mount: str = ""


class GitLabServer(Part):
    url: str = ""
    inline_auth: InlineAuth = InlineAuth()


class GitLabSecretsManager(Part):
    server: GitLabServer = GitLabServer()
    engine: Engine = Engine()
    path: str = ""
    field: str = ""


class Secret(Part):
    """One secret of a job; `file` says whether its variable holds a path."""

    vault: Vault | None = None
    gcp_secret_manager: GcpSecretManager | None = None
    azure_key_vault: AzureKeyVault | None = None
    aws_secrets_manager: AwsSecretsManager | None = None
    gitlab_secrets_manager: GitLabSecretsManager | None = None
    file: bool = True

    @property
    def providers(self) -> tuple[str, ...]:
        """The names of the providers given; anything but one of them cannot be resolved."""
        return tuple(name for name in type(self).model_fields if name != "file" and getattr(self, name) is not None)
