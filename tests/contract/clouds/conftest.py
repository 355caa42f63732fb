"""Buckets and containers at stand-ins of clouds, each test with its own."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator

import boto3
import pytest

from tests.clouds import servers


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    with servers.moto() as address:
        yield address


@pytest.fixture
def aws(moto_server: str):
    """Makes clients of AWS at moto."""

    def client(service: str):
        return boto3.client(
            service,
            endpoint_url=f"http://{moto_server}",
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="tests",
        )

    return client


@pytest.fixture
def bucket(aws) -> str:
    """The name of a fresh S3 bucket."""
    name = f"cache-{secrets.token_hex(6)}"
    s3 = aws("s3")
    s3.create_bucket(Bucket=name)
    s3.close()
    return name


@pytest.fixture(scope="session")
def azure_key() -> str:
    return base64.b64encode(secrets.token_bytes(48)).decode()


@pytest.fixture(scope="session")
def azurite_server(azure_key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.azurite(tmp_path_factory.mktemp("azurite"), azure_key) as address:
        yield address


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    with servers.cloud_storage() as address:
        yield address
