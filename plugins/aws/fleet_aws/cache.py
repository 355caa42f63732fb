"""A cache store on S3, or on a server that speaks its protocol: signs addresses by boto3.

Rule: signing itself asks nobody. What may ask is getting credentials (the machine's role, STS) and the bucket's region,
each with short time-outs; both are kept. It leaves transfers to the machines, and errors to `errors`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config

from fleet.sdk import CacheMethod, CacheSetting, CredentialsRefused, SignedUrl
from fleet_aws.errors import translated

LONGEST_S = 7 * 24 * 3600.0  # of an address in AWS's signature, version 4
ROLE_S = 3600  # the longest that every role may be assumed for
RENEW_BEFORE_S = 300.0
MOST_CLIENTS = 8
QUICK = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
AMAZON = frozenset({"", "s3.amazonaws.com"})
REGION = "us-east-1"
ENCRYPTIONS: Mapping[str, str] = {
    "S3": "AES256", "AES256": "AES256", "KMS": "aws:kms", "aws:kms": "aws:kms", "DSSE-KMS": "aws:kms:dsse",
    "aws:kms:dsse": "aws:kms:dsse",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Credentials as they are now; `ends_at` is None for those without end."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    ends_at: datetime | None = None


class S3CacheStore:
    """One bucket."""

    def __init__(self, setting: CacheSetting) -> None:
        self._runner = setting.runner
        self._table = setting.table
        self._address = str(self._table.get("ServerAddress", ""))
        self._is_amazon = self._address in AMAZON
        self._bucket = str(self._table["BucketName"])
        self._session = boto3.session.Session()
        most = int(self._table.get("AssumeRoleMaxConcurrency", 0)) or 5
        self._assuming = nullcontext() if most < 0 else threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._roles: dict[str, Keys] = {}
        self._clients: dict[tuple[Keys, str], Any] = {}
        self._found_region: str | None = None

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        """An address for one object; see the contract."""
        role = str(self._table.get("RoleARN", ""))
        if method is CacheMethod.PUT:
            role = str(self._table.get("UploadRoleARN", "")) or role
        with translated(f"the cache bucket {self._bucket} of runner {self._runner}"):
            keys = self._role_keys(role, now) if role else self._own_keys()
            return self._signed(method, name, keys, now, valid_s)

    def close(self) -> None:
        """Nothing is kept open."""

    def _signed(self, method: CacheMethod, name: str, keys: Keys, now: datetime, valid_s: float) -> SignedUrl:
        asked = {"Bucket": self._bucket, "Key": name}
        headers: dict[str, str] = {}
        if method is CacheMethod.PUT:
            encryption, headers = self._encryption()
            asked |= encryption
        seconds = int(min(valid_s, LONGEST_S))
        url = self._client(keys).generate_presigned_url(
            "put_object" if method is CacheMethod.PUT else "get_object", Params=asked, ExpiresIn=seconds
        )
        ends_at = now + timedelta(seconds=seconds)
        return SignedUrl(
            url=url, headers=headers, expires_at=ends_at if keys.ends_at is None else min(ends_at, keys.ends_at)
        )

    def _encryption(self) -> tuple[dict[str, str], dict[str, str]]:
        """Parameters of an upload, and the headers that go with them."""
        written = str(self._table.get("ServerSideEncryption", ""))
        how, key = ENCRYPTIONS.get(written), str(self._table.get("ServerSideEncryptionKeyID", ""))
        if how is None:
            return {}, {}
        asked, headers = {"ServerSideEncryption": how}, {"x-amz-server-side-encryption": how}
        if key and how != "AES256":
            asked["SSEKMSKeyId"] = headers["x-amz-server-side-encryption-aws-kms-key-id"] = key
        return asked, headers

    def _client(self, keys: Keys, region: str | None = None) -> Any:
        """A client for the bucket, kept while its keys hold; making one asks nobody."""
        region = region or self._region(keys)
        made_of = (keys, region)
        with self._lock:
            if made_of not in self._clients:
                if len(self._clients) >= MOST_CLIENTS:
                    self._clients.clear()
                self._clients[made_of] = self._session.client(
                    "s3",
                    region_name=region,
                    endpoint_url=self._endpoint(),
                    aws_access_key_id=keys.access_key,
                    aws_secret_access_key=keys.secret_key,
                    aws_session_token=keys.session_token,
                    config=self._config(),
                )
            return self._clients[made_of]

    def _config(self) -> Config:
        path_style = self._table.get("PathStyle")
        is_path = not self._is_amazon if path_style is None else bool(path_style)
        return QUICK.merge(
            Config(
                signature_version="s3v4",
                # a checksum would be that of an empty body
                request_checksum_calculation="when_required",
                s3={
                    "addressing_style": "path" if is_path else "virtual",
                    "use_dualstack_endpoint": self._is_amazon and bool(self._table.get("DualStack", True)),
                    "use_accelerate_endpoint": self._is_amazon and bool(self._table.get("Accelerate", False)),
                },
            )
        )

    def _endpoint(self) -> str | None:
        if self._is_amazon:
            return None
        if "://" in self._address:
            return self._address
        return f"http{'' if self._table.get('Insecure') else 's'}://{self._address}"

    def _region(self, keys: Keys) -> str:
        """As configured, else as Amazon says, which answers even those who may not look."""
        given = str(self._table.get("BucketLocation", ""))
        if given or not self._is_amazon:
            return given or REGION
        if self._found_region is None:
            client = self._client(keys, REGION)
            try:
                answer = client.head_bucket(Bucket=self._bucket)
            except client.exceptions.ClientError as exc:
                answer = exc.response
            headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            self._found_region = str(headers.get("x-amz-bucket-region") or REGION)
        return self._found_region

    def _own_keys(self) -> Keys:
        """The keys in the table, or those of this host, which botocore renews."""
        access, secret = str(self._table.get("AccessKey", "")), str(self._table.get("SecretKey", ""))
        how = self._table.get("AuthenticationType")
        if how is None:
            how = "access-key" if self._address and access and secret else "iam"
        if how == "access-key":
            return Keys(access_key=access, secret_key=secret, session_token=self._table.get("SessionToken"))
        with self._lock:
            found = self._session.get_credentials()
        if found is None:
            raise CredentialsRefused(
                f"runner {self._runner}: this host has no AWS credentials for the cache: give it a role, or set"
                " AccessKey and SecretKey in [runners.cache.s3]"
            )
        frozen = found.get_frozen_credentials()
        # botocore tells the end of renewed credentials nowhere else
        return Keys(
            access_key=frozen.access_key,
            secret_key=frozen.secret_key,
            session_token=frozen.token,
            ends_at=getattr(found, "_expiry_time", None),
        )

    def _role_keys(self, role: str, now: datetime) -> Keys:
        """The credentials of a role, kept until shortly before their end."""
        kept = self._roles.get(role)
        is_kept = not self._table.get("DisableAssumeRoleCredentialsCaching", False)
        renew_at = now + timedelta(seconds=RENEW_BEFORE_S)
        if is_kept and kept is not None and kept.ends_at is not None and kept.ends_at > renew_at:
            return kept
        own = self._own_keys()
        with self._assuming:
            answer = self._sts(own).assume_role(RoleArn=role, RoleSessionName="fleet-cache", DurationSeconds=ROLE_S)[
                "Credentials"
            ]
        made = Keys(
            access_key=answer["AccessKeyId"],
            secret_key=answer["SecretAccessKey"],
            session_token=answer["SessionToken"],
            ends_at=answer["Expiration"],
        )
        self._roles[role] = made
        return made

    def _sts(self, keys: Keys) -> Any:
        with self._lock:
            return self._session.client(
                "sts",
                region_name=self._table.get("BucketLocation") or REGION,
                aws_access_key_id=keys.access_key,
                aws_secret_access_key=keys.secret_key,
                aws_session_token=keys.session_token,
                config=QUICK,
            )
