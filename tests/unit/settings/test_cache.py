"""`[runners.cache]` is read with GitLab Runner's words, keeps its secrets, and can stop no runner."""

from __future__ import annotations

import secrets

import pytest

from fleet.settings.runner import RunnerSettings
from fleet.settings.section import REVEAL
from fleet.settings.showing import as_toml

ENTRY = """
concurrent = 1
[[runners]]
url = "https://a"
id = 1
token = "t"
executor = "shell"
user = "builder"
request_concurrency = 2
"""
S3 = '[runners.cache]\nType = "s3"\nPath = "p"\nShared = true\nMaxUploadedArchiveSize = 7\n[runners.cache.s3]\n'


def cache_of(loaded):
    assert loaded.errors == ()
    return loaded.settings.runners[0].cache


def warnings_of(loaded):
    assert loaded.errors == ()
    assert len(loaded.settings.runners) == 1
    return [(each.key, each.message) for each in loaded.warnings if each.key == "runners[0].cache"]


def test_the_keys_of_gitlab_runner_are_read(load_text):
    secret = secrets.token_hex(20)
    loaded = load_text(
        ENTRY + S3 + f'BucketName = "b"\nServerAddress = "s3:9000"\nAccessKey = "a"\nSecretKey = "{secret}"\n'
        'Insecure = true\nPathStyle = "auto"\nAssumeRoleMaxConcurrency = -1\n'
    )
    cache = cache_of(loaded)
    assert (cache.kind, cache.path, cache.shared, cache.max_uploaded_archive_size) == ("s3", "p", True, 7)
    assert cache.given() == {
        "ServerAddress": "s3:9000", "AccessKey": "a", "SecretKey": secret, "BucketName": "b", "Insecure": True,
        "DualStack": True, "Accelerate": False, "AssumeRoleMaxConcurrency": -1,
        "DisableAssumeRoleCredentialsCaching": False,
    }  # fmt: skip
    assert warnings_of(loaded) == []
    assert secret not in as_toml(loaded.settings)
    assert secret not in repr(loaded.settings)


def test_secrets_come_back_from_the_store(load_text):
    secret = secrets.token_hex(20)
    runner = load_text(ENTRY + S3 + f'BucketName = "b"\nSecretKey = "{secret}"').settings.runners[0]
    assert secret not in str(runner.model_dump(mode="json"))
    again = RunnerSettings.model_validate(runner.model_dump(mode="json", context=REVEAL))
    assert again.cache.given()["SecretKey"] == secret


def test_the_case_of_the_keys_does_not_matter(load_text):
    cache = cache_of(load_text(ENTRY + '[runners.cache]\ntype = "GCS"\n[runners.cache.GCS]\nbucketname = "b"\n'))
    assert (cache.kind, cache.given()) == ("gcs", {"BucketName": "b"})


def test_a_typing_error_is_found(load_text):
    (error,) = load_text(ENTRY + S3 + 'BuketName = "b"\n').errors
    assert error.key == "runners[0].cache.s3.BuketName"
    assert "BucketName" in error.message


def test_a_credentials_file_lies_beside_the_configuration(load_text, tmp_path):
    text = '[runners.cache]\nType = "gcs"\n[runners.cache.gcs]\nBucketName = "b"\nCredentialsFile = "key.json"\n'
    assert cache_of(load_text(ENTRY + text)).given()["CredentialsFile"] == str(tmp_path / "key.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[runners.cache]\nType = "ftp"\n', "one of s3, gcs, azure"),
        ('[runners.cache]\nType = "s3"\n', "no table [runners.cache.s3]"),
        ('[runners.cache]\nType = "s3"\n[runners.cache.gcs]\nBucketName = "b"\n', "no table [runners.cache.s3]"),
        (S3 + 'ServerAddress = "a"\n', "BucketName must be set"),
        (S3 + 'BucketName = "b"\nAuthenticationType = "magic"\n', "neither access-key nor iam"),
        ('[runners.cache]\nType = "azure"\n[runners.cache.azure]\nAccountName = "a"\n', "ContainerName must be set"),
    ],
)
def test_what_is_wrong_is_warned_of_and_stops_nothing(load_text, text, words):
    ((_, message),) = warnings_of(load_text(ENTRY + text))
    assert words in message


@pytest.mark.parametrize(
    "text", ["", "[runners.cache]\n", '[runners.cache]\nPath = "p"\n', '[runners.cache]\nType=""\n']
)
def test_no_type_is_no_remote_store(load_text, text):
    loaded = load_text(ENTRY + text)
    assert cache_of(loaded).kind is None
    assert warnings_of(loaded) == []
