"""Amazon Web Services for fleet: the hooks.

Rule: this module is imported by every manager that starts, so boto3 is imported only when a hook is asked for.
"""

from __future__ import annotations

from fleet.sdk import AwsSecret, CacheSetting, CacheStore, SecretRequest, SecretValue, hookimpl


@hookimpl
def fleet_cache_store(kind: str, setting: CacheSetting) -> CacheStore | None:
    """A cache store on S3, or on a server that speaks its protocol."""
    if kind != "s3":
        return None
    from fleet_aws.cache import S3CacheStore  # noqa: PLC0415  boto3 takes a third of a second

    return S3CacheStore(setting)


@hookimpl
def fleet_secret(request: SecretRequest) -> SecretValue | None:
    """A secret in AWS Secrets Manager."""
    if not isinstance(request, AwsSecret):
        return None
    from fleet_aws.secrets import fetch  # noqa: PLC0415  boto3 takes a third of a second

    return fetch(request)
