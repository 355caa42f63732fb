"""Each plugin signs addresses that work as they are, for one object, one method, and a time."""

from __future__ import annotations

import json
import secrets
import urllib.parse
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import BlobServiceClient
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fleet.runtime.providers import Plugins
from fleet.sdk import BadParameters, CacheMethod, CacheSetting, CredentialsRefused
from tests.clouds.servers import AZURITE_ACCOUNT, request

NAME = "runner/abc/project/7/a key/with ünïcode~+&?.x"
ROLE = "arn:aws:iam::123456789012:role/cache"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins()


@pytest.fixture
def store_of(plugins):
    def make(kind, **table):
        return plugins.cache_store(kind, CacheSetting(runner="r", table=table))

    return make


@pytest.fixture
def s3(store_of, moto_server, bucket):
    def make(**more):
        table = {
            "ServerAddress": moto_server, "AccessKey": "tests", "SecretKey": secrets.token_hex(16), "Insecure": True,
            "BucketName": bucket, "BucketLocation": "us-east-1",
        }  # fmt: skip
        return store_of("s3", **{key: value for key, value in (table | more).items() if value is not None})

    return make


def sign(store, method=CacheMethod.GET, name=NAME, valid_s=600.0, at=None):
    return store.sign(method, name, now=at or now(), valid_s=valid_s)


def round_trip(store, name=NAME):
    """What comes down is what went up; the statuses of a download before, the upload, and one after."""
    content = secrets.token_bytes(3000)
    put, get = sign(store, CacheMethod.PUT, name), sign(store, CacheMethod.GET, name)
    before, _ = request("GET", get.url, headers=dict(get.headers))
    status, answer = request("PUT", put.url, body=content, headers=dict(put.headers))
    assert status in {200, 201}, answer
    after, found = request("GET", get.url, headers=dict(get.headers))
    assert (after, found) == (200, content)
    return before


def test_nobody_makes_what_is_of_no_kind(store_of):
    assert store_of("ftp") is None


# S3


def test_s3_addresses_work_as_they_are(s3, aws, bucket):
    assert round_trip(s3()) == 404
    client = aws("s3")
    assert [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]] == [NAME]
    client.close()


def test_an_s3_address_says_nothing_of_the_secret_and_ends_when_it_says(s3):
    secret = secrets.token_hex(16)
    at = now()
    signed = sign(s3(SecretKey=secret), at=at, valid_s=900.7)
    assert signed.expires_at == at + timedelta(seconds=900)
    assert "X-Amz-Expires=900" in signed.url
    assert secret not in signed.url
    assert signed.url not in repr(signed)


def test_no_s3_address_holds_for_more_than_a_week(s3):
    at = now()
    assert sign(s3(), at=at, valid_s=30 * 86400.0).expires_at == at + timedelta(days=7)


@pytest.mark.parametrize(
    ("written", "key", "headers"),
    [
        ("S3", None, {"x-amz-server-side-encryption": "AES256"}),
        ("aws:kms", None, {"x-amz-server-side-encryption": "aws:kms"}),
        (
            "KMS", "alias/cache",
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "alias/cache"},
        ),
    ],
)  # fmt: skip
def test_an_upload_is_encrypted_as_the_bucket_wants(s3, written, key, headers):
    store = s3(ServerSideEncryption=written, ServerSideEncryptionKeyID=key)
    put = sign(store, CacheMethod.PUT)
    assert put.headers == headers
    signed = urllib.parse.parse_qs(urllib.parse.urlsplit(put.url).query)["X-Amz-SignedHeaders"][0].split(";")
    assert set(headers) <= set(signed)
    assert request("PUT", put.url, body=b"x", headers=dict(put.headers))[0] == 200
    assert sign(store).headers == {}


def host_and_path(store):
    parts = urllib.parse.urlsplit(sign(store, name="k").url)
    return parts.scheme, parts.netloc, parts.path


def test_amazons_own_addresses(store_of):
    keys = {"AccessKey": "a", "SecretKey": "s", "AuthenticationType": "access-key", "BucketLocation": "eu-west-1"}
    assert host_and_path(store_of("s3", BucketName="bucket", **keys)) == (
        "https", "bucket.s3.dualstack.eu-west-1.amazonaws.com", "/k",
    )  # fmt: skip
    assert host_and_path(store_of("s3", BucketName="bucket", DualStack=False, **keys)) == (
        "https", "bucket.s3.eu-west-1.amazonaws.com", "/k",
    )  # fmt: skip
    accelerated = store_of("s3", BucketName="bucket", DualStack=False, Accelerate=True, **keys)
    assert host_and_path(accelerated)[1] == "bucket.s3-accelerate.amazonaws.com"
    in_the_path = store_of("s3", BucketName="bucket", DualStack=False, PathStyle=True, **keys)
    assert host_and_path(in_the_path) == ("https", "s3.eu-west-1.amazonaws.com", "/bucket/k")


def test_another_servers_addresses(store_of):
    table = {"ServerAddress": "minio:9000", "AccessKey": "a", "SecretKey": "s", "BucketName": "bucket"}
    assert host_and_path(store_of("s3", **table)) == ("https", "minio:9000", "/bucket/k")
    assert host_and_path(store_of("s3", **table, PathStyle=False)) == ("https", "bucket.minio:9000", "/k")


def test_a_role_is_assumed_once_and_ends_its_addresses(s3, moto_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{moto_server}")
    store = s3(RoleARN=ROLE)
    first, second = sign(store, valid_s=86400.0), sign(store, CacheMethod.PUT, valid_s=86400.0)
    assert timedelta(minutes=50) < first.expires_at - now() <= timedelta(hours=1, seconds=5)

    def key_of(signed):
        return urllib.parse.parse_qs(urllib.parse.urlsplit(signed.url).query)["X-Amz-Credential"][0].split("/")[0]

    assert key_of(first) == key_of(second) != "tests"
    later = sign(store, at=now() + timedelta(minutes=58))
    assert key_of(later) != key_of(first)
    uncached = s3(RoleARN=ROLE, DisableAssumeRoleCredentialsCaching=True)
    assert key_of(sign(uncached)) != key_of(sign(uncached))
    only_up = s3(UploadRoleARN=ROLE)
    assert key_of(sign(only_up)) == "tests"
    assert key_of(sign(only_up, CacheMethod.PUT)) != "tests"
    assert round_trip(store)


def test_this_hosts_credentials_are_used_when_there_are_no_keys(s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-host")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secrets.token_hex(8))
    assert "from-the-host" in sign(s3(AccessKey=None, SecretKey=None)).url
    assert "from-the-host" in sign(s3(AuthenticationType="iam")).url


def test_no_credentials_anywhere_are_told(s3, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CredentialsRefused, match=r"give it a role, or set AccessKey"):
        sign(s3(AccessKey=None, SecretKey=None))


# Cloud Storage


@pytest.fixture(scope="module")
def google_key() -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture
def gcs(store_of, gcs_server, google_key, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{gcs_server}")
    name = f"cache-{secrets.token_hex(6)}"
    made, answer = request(
        "POST", f"http://{gcs_server}/storage/v1/b?project=p", body=json.dumps({"name": name}).encode(),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert made == 200, answer
    return store_of("gcs", BucketName=name, AccessID="cache@p.example", PrivateKey=google_key)


def test_cloud_storage_addresses_work_as_they_are(gcs):
    round_trip(gcs, "runner/abc/project/7/key")


def test_a_cloud_storage_address_is_of_version_4_and_ends_when_it_says(store_of, google_key, tmp_path):
    at = now()
    for table in (
        {"AccessID": "cache@p.example", "PrivateKey": google_key},
        {"AccessID": "cache@p.example", "PrivateKey": google_key.replace("\n", "\\n")},
        {"CredentialsFile": _credentials_file(tmp_path, google_key)},
    ):
        signed = sign(store_of("gcs", BucketName="b", UniverseDomain="cloud.example", **table), at=at, valid_s=700)
        parts = urllib.parse.urlsplit(signed.url)
        query = urllib.parse.parse_qs(parts.query)
        assert (parts.netloc, parts.path) == ("storage.cloud.example", "/b/" + urllib.parse.quote(NAME, safe="/~"))
        assert query["X-Goog-Algorithm"] == ["GOOG4-RSA-SHA256"]
        assert query["X-Goog-Expires"] == ["700"]
        assert query["X-Goog-Credential"][0].startswith("cache@p.example/")
        assert signed.expires_at == at + timedelta(seconds=700)


def _credentials_file(tmp_path, key):
    path = tmp_path / "key.json"
    account = {
        "type": "service_account", "client_email": "cache@p.example", "private_key": key, "token_uri": "http://localhost/",
        "project_id": "p", "private_key_id": "1",
    }  # fmt: skip
    path.write_text(json.dumps(account))
    return str(path)


def test_a_broken_google_key_is_told_and_not_shown(store_of):
    with pytest.raises(BadParameters) as caught:
        store_of("gcs", BucketName="b", AccessID="a", PrivateKey="not-a-key-at-all")
    assert "cannot sign" in str(caught.value)
    assert "not-a-key-at-all" not in str(caught.value)


def test_a_missing_credentials_file_is_told(store_of, tmp_path):
    with pytest.raises(BadParameters, match=r"none\.json cannot be read"):
        store_of("gcs", BucketName="b", CredentialsFile=str(tmp_path / "none.json"))


# Blob Storage


@pytest.fixture
def azure(store_of, azurite_server, azure_key):
    address = f"http://{azurite_server}/{AZURITE_ACCOUNT}"
    name = f"cache-{secrets.token_hex(6)}"
    with BlobServiceClient(address, {"account_name": AZURITE_ACCOUNT, "account_key": azure_key}) as client:
        client.create_container(name)

    def make(**more):
        table = {
            "AccountName": AZURITE_ACCOUNT,
            "ContainerName": name,
            "StorageDomain": address,
            "AccountKey": azure_key,
        }
        return store_of("azure", **{key: value for key, value in (table | more).items() if value is not None})

    return make


def test_blob_storage_addresses_work_as_they_are(azure):
    assert round_trip(azure()) == 404


def test_a_blob_storage_address_is_for_one_object_one_method_and_a_time(azure):
    store = azure()
    get, put = sign(store), sign(store, CacheMethod.PUT)
    assert put.headers == {"x-ms-blob-type": "BlockBlob"}
    assert request("PUT", get.url, body=b"x", headers=dict(put.headers))[0] == 403
    other = put.url.replace("/7/", "/8/")
    assert request("PUT", other, body=b"x", headers=dict(put.headers))[0] == 403
    old = sign(store, CacheMethod.PUT, at=now() - timedelta(hours=2), valid_s=60)
    assert request("PUT", old.url, body=b"x", headers=dict(old.headers))[0] == 403


def test_azures_own_addresses(store_of, azure_key):
    signed = sign(store_of("azure", AccountName="acc", ContainerName="c", AccountKey=azure_key), name="k")
    assert signed.url.startswith("https://acc.blob.core.windows.net/c/k?")
    china = store_of(
        "azure", AccountName="acc", ContainerName="c", AccountKey=azure_key, StorageDomain="blob.core.chinacloudapi.cn"
    )
    assert sign(china, name="k").url.startswith("https://acc.blob.core.chinacloudapi.cn/c/k?")
    assert azure_key not in signed.url


def test_a_broken_account_key_is_told_and_not_shown(azure):
    with pytest.raises(BadParameters) as caught:
        sign(azure(AccountKey="not base64!"))
    assert "not base64!" not in str(caught.value)


def test_without_a_key_this_hosts_identity_is_asked_and_its_absence_told(azure, monkeypatch):
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(CredentialsRefused, match="Azure refuses our credentials"):
        sign(azure(AccountKey=None, StorageDomain="https://127.0.0.1:9"))
