"""A cache store on Azure Blob Storage: signs addresses (shared access signatures) by its SDK.

Rule: with the account's key signing asks nobody. With this host's identity a user delegation key is fetched, kept, and
fetched anew shortly before its end. It leaves transfers to the machines, and errors to `errors`.
"""

from __future__ import annotations

import threading
import urllib.parse
from datetime import datetime, timedelta
from typing import Any

from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas

from fleet.sdk import CacheMethod, CacheSetting, SignedUrl
from fleet_azure.errors import translated

DOMAIN = "blob.core.windows.net"
DELEGATION_S = 6 * 24 * 3600.0  # a delegation key may be asked for seven days; a day is left for clocks and renewal
RENEW_BEFORE_S = 24 * 3600.0
SKEW_S = 900.0


class AzureCacheStore:
    """One container."""

    def __init__(self, setting: CacheSetting) -> None:
        table = setting.table
        self._account = str(table["AccountName"])
        self._container = str(table["ContainerName"])
        self._key: str | None = table.get("AccountKey")
        self._what = f"the cache container {self._container} of runner {setting.runner}"
        domain = str(table.get("StorageDomain") or DOMAIN)
        self._address = domain.rstrip("/") if "://" in domain else f"https://{self._account}.{domain}"
        self._lock = threading.Lock()
        self._delegated: Any = None
        self._delegated_until: datetime | None = None

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        """An address for one object; see the contract."""
        ends_at = now + timedelta(seconds=int(valid_s))
        with translated(self._what):
            signer: dict[str, Any] = {"account_key": self._key}
            if self._key is None:
                delegated, until = self._delegation(now)
                signer, ends_at = {"user_delegation_key": delegated}, min(ends_at, until)
            signature = generate_blob_sas(
                account_name=self._account,
                container_name=self._container,
                blob_name=name,
                permission=BlobSasPermissions(
                    read=method is CacheMethod.GET, write=method is CacheMethod.PUT, create=method is CacheMethod.PUT
                ),
                start=now - timedelta(seconds=SKEW_S),
                expiry=ends_at,
                **signer,
            )
        url = f"{self._address}/{self._container}/{urllib.parse.quote(name, safe='/~')}?{signature}"
        headers = {"x-ms-blob-type": "BlockBlob"} if method is CacheMethod.PUT else {}
        return SignedUrl(url=url, headers=headers, expires_at=ends_at)

    def close(self) -> None:
        """Nothing is kept open."""

    def _delegation(self, now: datetime) -> tuple[Any, datetime]:
        with self._lock:
            if self._delegated_until is None or self._delegated_until - now < timedelta(seconds=RENEW_BEFORE_S):
                until = now + timedelta(seconds=DELEGATION_S)
                with (
                    DefaultAzureCredential(process_timeout=10) as credential,
                    BlobServiceClient(
                        self._address,
                        credential,
                        connection_timeout=5,
                        read_timeout=10,
                        retry_total=1,
                        initial_backoff=1,
                    ) as client,
                ):
                    self._delegated = client.get_user_delegation_key(now - timedelta(seconds=SKEW_S), until)
                self._delegated_until = until
            return self._delegated, self._delegated_until
