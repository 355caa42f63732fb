"""Fetches a job's secret from AWS Secrets Manager.

Rule: with a role the job's own token is exchanged for that role's credentials, which live for this one request; without
one the manager's identity is used, as GitLab Runner does. Nothing is kept between two requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from fleet.sdk import AwsSecret, SecretDenied, SecretError, SecretNotFound, SecretUnavailable, SecretValue

CONNECT_S = 10.0
WORDS = 400  # characters of what AWS says
LATER = frozenset((
    "InternalFailure", "InternalServiceError", "RequestLimitExceeded", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "TooManyRequestsException", "IDPCommunicationError",
))  # fmt: skip


def fetch(request: AwsSecret) -> SecretValue:
    """The secret, or one field of it."""
    until = time.monotonic() + request.timeout_s
    session = boto3.session.Session(region_name=request.region or None)
    keys = _keys_of_role(session, request, until) if request.role_arn or request.jwt else {}
    which = {"SecretId": request.secret_id, "VersionId": request.version_id, "VersionStage": request.version_stage}
    with _translated(f"secret {request.secret_id} in AWS Secrets Manager{_at(session)}"):
        client = session.client("secretsmanager", config=_within(until), **keys)
        told = client.get_secret_value(**{name: value for name, value in which.items() if value})
    text = _text(told, request)
    return SecretValue(text=_field(text, request) if request.field else text)


def _keys_of_role(session: Any, request: AwsSecret, until: float) -> dict[str, str]:
    if not request.role_arn:
        raise SecretDenied("AWS_ROLE_ARN is not set: a job's token can be exchanged for the keys of a role only")
    if not request.jwt:
        raise SecretDenied(
            f"there is no token to take role {request.role_arn} with: add `id_tokens` with AWS_ID_TOKEN to the job, or"
            " leave the role out to use the runner's own"
        )
    with _translated(f"role {request.role_arn}{_at(session)}"):
        # unsigned: the token is all the proof there is, and the host's own keys have no part in it
        client = session.client("sts", config=_within(until).merge(Config(signature_version=UNSIGNED)))
        told = client.assume_role_with_web_identity(
            RoleArn=request.role_arn,
            RoleSessionName=request.role_session_name or "fleet",
            WebIdentityToken=request.jwt,
            DurationSeconds=900,
        )
    keys = told["Credentials"]
    return {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["SessionToken"],
    }


def _at(session: Any) -> str:
    return f" in {session.region_name}" if session.region_name else ""


def _within(until: float) -> Config:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise SecretUnavailable("AWS did not answer in time: retry the job")
    return Config(
        connect_timeout=min(CONNECT_S, left_s),
        read_timeout=left_s,
        retries={"total_max_attempts": 1},
        user_agent_extra="fleetctl",
    )


def _text(told: dict[str, Any], request: AwsSecret) -> str:
    text = told.get("SecretString")
    if isinstance(text, str):
        return text
    try:
        return bytes(told.get("SecretBinary") or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise SecretError(
            f"secret {request.secret_id} is binary and no text: keep it as base64, and decode it in the job"
        ) from None


def _field(text: str, request: AwsSecret) -> str:
    """A key of the JSON object: a string, a number as it is written, or a boolean."""
    what = f"secret {request.secret_id}"
    try:
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        found = None  # not chained: the error would carry the secret
    if not isinstance(found, dict):
        raise SecretDenied(f"{what} is no JSON object, so it has no field {request.field!r}: leave `field` out")
    if request.field not in found:
        raise SecretNotFound(f"there is no field {request.field!r} in {what}")
    value = found[request.field]
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        raise SecretDenied(f"field {request.field!r} of {what} is neither a string, a number nor a boolean")
    return value


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        raise _answered(what, exc) from exc
    except NoRegionError as exc:
        raise SecretDenied(f"{what}: no region is known: set AWS_REGION in the job") from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise SecretDenied(
            f"{what}: the runner has no AWS identity: set AWS_ROLE_ARN and an id token in the job"
        ) from exc
    except (ParamValidationError, ValueError) as exc:
        raise SecretDenied(f"{what}: AWS takes no such name or version ({type(exc).__name__})") from None
    except BotoCoreError as exc:
        raise SecretUnavailable(f"{what}: AWS did not answer: {exc}") from exc


def _answered(what: str, exc: ClientError) -> SecretError:
    error = exc.response.get("Error", {})
    code, status = str(error.get("Code", "")), int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{what}: AWS says {code}: {str(error.get('Message', ''))[:WORDS]}"
    if code == "ResourceNotFoundException":
        return SecretNotFound(said)
    if status >= 500 or status == 429 or code in LATER:
        return SecretUnavailable(said)
    if 400 <= status < 500:
        return SecretDenied(said)
    return SecretError(said)
