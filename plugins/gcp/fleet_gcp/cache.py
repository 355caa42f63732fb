"""A cache store on Google Cloud Storage: signs addresses (signature version 4) by its SDK.

Rule: with a service account's key signing asks nobody. With this host's own identity each address is signed by
Google's IAM, which is asked with a short time-out. It leaves transfers to the machines, and errors to `errors`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import google.auth
import google.auth.credentials
import google.auth.transport.requests
from google.auth import crypt
from google.cloud.storage import Client
from google.oauth2 import service_account

from fleet.sdk import CacheMethod, CacheSetting, SignedUrl
from fleet_gcp.errors import translated

LONGEST_S = 7 * 24 * 3600.0  # of an address in Google's signature, version 4
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKENS = "https://oauth2.googleapis.com/token"


class GcsCacheStore:
    """One bucket."""

    def __init__(self, setting: CacheSetting) -> None:
        self._table = setting.table
        self._what = f"the cache bucket {self._table['BucketName']} of runner {setting.runner}"
        self._lock = threading.Lock()
        with translated(self._what):
            self._credentials = _credentials(self._table)
        domain = str(self._table.get("UniverseDomain") or "googleapis.com")
        # as Google's own libraries do, so that an emulator can stand in
        self._endpoint = os.environ.get("STORAGE_EMULATOR_HOST") or f"https://storage.{domain}"
        client = Client(project="none", credentials=self._credentials)
        self._bucket = client.bucket(str(self._table["BucketName"]))

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        """An address for one object; see the contract."""
        seconds = int(min(valid_s, LONGEST_S))
        headers = {"content-type": "application/octet-stream"} if method is CacheMethod.PUT else {}
        with translated(self._what):
            url = self._bucket.blob(name).generate_signed_url(
                version="v4",
                method=method.value,
                expiration=timedelta(seconds=seconds),
                headers=dict(headers),
                api_access_endpoint=self._endpoint,
                **self._signer(),
            )
        return SignedUrl(url=str(url), headers=headers, expires_at=now + timedelta(seconds=seconds))

    def close(self) -> None:
        """Nothing is kept open."""

    def _signer(self) -> dict[str, Any]:
        """What signs: the key of an account, or IAM in the name of this host's account."""
        found = self._credentials
        if isinstance(found, google.auth.credentials.Signing):
            return {"credentials": found}
        with self._lock:
            if not found.valid:
                found.refresh(google.auth.transport.requests.Request())
        return {"service_account_email": found.service_account_email, "access_token": found.token}


def _credentials(table: Mapping[str, Any]) -> Any:
    if table.get("CredentialsFile"):
        return service_account.Credentials.from_service_account_file(str(table["CredentialsFile"]), scopes=[SCOPE])
    if table.get("AccessID") and table.get("PrivateKey"):
        pem = str(table["PrivateKey"]).replace("\\n", "\n")  # as it stands in a JSON file
        return service_account.Credentials(
            crypt.RSASigner.from_string(pem), str(table["AccessID"]), TOKENS, scopes=[SCOPE]
        )
    found, _ = google.auth.default(scopes=[SCOPE])
    return found
