"""`[runners.cache]`: where archives of job caches are kept beside the machine, with GitLab Runner's words.

Rule: keys are written in CamelCase, as GitLab Runner has them and unlike all others; their case does not matter.
Nothing in these tables can stop a runner: what is wrong is warned of, and its jobs go without a remote cache.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator

from fleet.settings.section import OptionalSecret, Section, Text

KINDS = ("s3", "gcs", "azure")
PLUGINS: Mapping[str, str] = {"s3": "aws", "gcs": "gcp", "azure": "azure"}  # kind -> entry point that makes its stores


class S3CacheTable(Section):
    """`[runners.cache.s3]`: a bucket of Amazon S3, or of a server that speaks its protocol."""

    server_address: Annotated[Text, Field(alias="ServerAddress")] = None
    """Host and port of the server. Not set: Amazon's."""
    access_key: Annotated[OptionalSecret, Field(alias="AccessKey")] = None
    """Access key. Not set: the credentials of this host, as the AWS SDK finds them."""
    secret_key: Annotated[OptionalSecret, Field(alias="SecretKey")] = None
    """Secret key that belongs to it."""
    session_token: Annotated[OptionalSecret, Field(alias="SessionToken")] = None
    """Session token, for temporary keys."""
    bucket_name: Annotated[Text, Field(alias="BucketName")] = None
    """The bucket."""
    bucket_location: Annotated[Text, Field(alias="BucketLocation")] = None
    """Region of the bucket. Not set: asked of Amazon, else `us-east-1`."""
    insecure: Annotated[bool, Field(alias="Insecure")] = False
    """Speak HTTP instead of HTTPS with `ServerAddress`."""
    authentication_type: Annotated[Text, Field(alias="AuthenticationType")] = None
    """`access-key` or `iam` (this host's credentials). Not set: `iam` when `ServerAddress` or a key is missing."""
    server_side_encryption: Annotated[Text, Field(alias="ServerSideEncryption")] = None
    """How the bucket encrypts: `S3` (or `AES256`), `KMS` (or `aws:kms`), `DSSE-KMS`. Not set: as the bucket says."""
    server_side_encryption_key_id: Annotated[Text, Field(alias="ServerSideEncryptionKeyID")] = None
    """Id or alias of the KMS key."""
    dual_stack: Annotated[bool, Field(alias="DualStack")] = True
    """Use Amazon's addresses for IPv4 and IPv6."""
    path_style: Annotated[bool | None, Field(alias="PathStyle")] = None
    """Name the bucket in the path instead of the host name. Not set: only with `ServerAddress`."""
    accelerate: Annotated[bool, Field(alias="Accelerate")] = False
    """Use Amazon's transfer acceleration."""
    role_arn: Annotated[Text, Field(alias="RoleARN")] = None
    """Role to assume before an address is signed."""
    upload_role_arn: Annotated[Text, Field(alias="UploadRoleARN")] = None
    """Role to assume for uploads alone. Not set: `RoleARN`."""
    assume_role_max_concurrency: Annotated[int, Field(alias="AssumeRoleMaxConcurrency")] = 5
    """Roles assumed at once; -1 is no limit, 0 means 5."""
    disable_assume_role_credentials_caching: Annotated[bool, Field(alias="DisableAssumeRoleCredentialsCaching")] = False
    """Assume the role anew for each address."""

    @field_validator("path_style", mode="before")
    @classmethod
    def _path_style(cls, value: object) -> object:
        return None if value in {"", "auto"} else value


class GcsCacheTable(Section):
    """`[runners.cache.gcs]`: a bucket of Google Cloud Storage."""

    access_id: Annotated[Text, Field(alias="AccessID")] = None
    """E-mail address of the service account. Not set, and no `CredentialsFile`: this host's credentials."""
    private_key: Annotated[OptionalSecret, Field(alias="PrivateKey")] = None
    """Private key of the service account (PEM)."""
    credentials_file: Annotated[Text, Field(alias="CredentialsFile")] = None
    """File with the service account's key (JSON); it beats `AccessID` and `PrivateKey`."""
    bucket_name: Annotated[Text, Field(alias="BucketName")] = None
    """The bucket."""
    universe_domain: Annotated[Text, Field(alias="UniverseDomain")] = None
    """Domain of the cloud. Not set: `googleapis.com`."""


class AzureCacheTable(Section):
    """`[runners.cache.azure]`: a container of Azure Blob Storage."""

    account_name: Annotated[Text, Field(alias="AccountName")] = None
    """The storage account."""
    account_key: Annotated[OptionalSecret, Field(alias="AccountKey")] = None
    """Its key. Not set: this host's identity signs (a user delegation key)."""
    container_name: Annotated[Text, Field(alias="ContainerName")] = None
    """The container."""
    storage_domain: Annotated[Text, Field(alias="StorageDomain")] = None
    """Domain of the service. Not set: `blob.core.windows.net`. With `http://` or `https://` before it, it is the whole
    address of the account (ours)."""


class CacheTable(Section):
    """`[runners.cache]`: a remote store for job caches; without one, they stay on the machine."""

    kind: Annotated[Text, Field(alias="Type")] = None
    """`s3`, `gcs` or `azure`; the plugin `aws`, `gcp` or `azure` must be installed. Not set: no remote store."""
    path: Annotated[Text, Field(alias="Path")] = None
    """What the names of all objects begin with."""
    shared: Annotated[bool, Field(alias="Shared")] = False
    """Share caches with other runners: leave the runner's short token out of the names."""
    max_uploaded_archive_size: Annotated[int, Field(alias="MaxUploadedArchiveSize")] = 0
    """The largest archive to upload, in bytes; 0 is no limit."""
    s3: S3CacheTable | None = None
    """A bucket of Amazon S3, or of a server that speaks its protocol."""
    gcs: GcsCacheTable | None = None
    """A bucket of Google Cloud Storage."""
    azure: AzureCacheTable | None = None
    """A container of Azure Blob Storage."""

    @field_validator("kind")
    @classmethod
    def _kind(cls, value: str | None) -> str | None:
        return None if value is None else value.strip().lower() or None

    @property
    def store(self) -> Section | None:
        """The table of the store that `Type` names; None where there is no such table."""
        return {"s3": self.s3, "gcs": self.gcs, "azure": self.azure}.get(self.kind or "")

    def with_paths_from(self, directory: str) -> CacheTable:
        """The same, where relative paths start at a directory."""
        if self.gcs is None or self.gcs.credentials_file is None:
            return self
        path = os.path.normpath(os.path.join(directory, os.path.expanduser(self.gcs.credentials_file)))
        return self.model_copy(update={"gcs": self.gcs.model_copy(update={"credentials_file": path})})

    def given(self) -> dict[str, Any]:
        """The store's table for its plugin, secrets in clear, without what is not set."""
        store = self.store
        if store is None:
            return {}
        named = {name: field.alias or name for name, field in type(store).model_fields.items()}
        values = {alias: getattr(store, name) for name, alias in named.items()}
        return {
            alias: value.get_secret_value() if isinstance(value, SecretStr) else value
            for alias, value in values.items()
            if value is not None
        }


def problem_of(cache: CacheTable) -> str | None:
    """Why the file alone says that there can be no remote cache; None while nothing is known against it."""
    if cache.kind is None:
        return None
    if cache.kind not in KINDS:
        return f"Type is {cache.kind!r}: use one of {', '.join(KINDS)}"
    given = cache.given()
    if not given:
        return f"Type is {cache.kind!r}, and there is no table [runners.cache.{cache.kind}]"
    wanted = {"s3": ("BucketName",), "gcs": ("BucketName",), "azure": ("AccountName", "ContainerName")}[cache.kind]
    missing = [key for key in wanted if not given.get(key)]
    if missing:
        return f"{' and '.join(missing)} must be set in [runners.cache.{cache.kind}]"
    if cache.kind == "s3" and given.get("AuthenticationType", "iam") not in {"iam", "access-key"}:
        return "AuthenticationType in [runners.cache.s3] is neither access-key nor iam"
    return None
