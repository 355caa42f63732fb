"""Checks of a request's form that need no knowledge of jobs: headers, info, labels, system id.

Rule: each check returns the breaches as (slug, detail); the server still answers as GitLab would,
which forgives most of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from werkzeug.wrappers import Request

Breach = tuple[str, str]

SYSTEM_ID = re.compile(r"[sr]_[0-9a-zA-Z]{12}")
LABEL_KEY = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{2,64}")
LABEL_VALUE = re.compile(r"[a-zA-Z0-9._-]{1,256}")
INFO_TEXTS = ("name", "version", "revision", "platform", "architecture", "executor")
WANTS_BODY = frozenset({"register", "verify", "request", "reset_token", "reset_runner_token"})
MOST_LABELS = 32
OTHER_BODIES = frozenset({"artifact_upload", "artifact_download"})  # a form, and nothing


def form_breaches(endpoint: str, request: Request) -> Iterator[Breach]:
    """What the headers of a call with a JSON body must say; `trace` has its own content type."""
    if endpoint in OTHER_BODIES:
        return
    wanted = "text/plain" if endpoint == "trace" else "application/json"
    if endpoint != "reset_runner_token" and request.mimetype != wanted:
        yield "bad_header", f"{endpoint}: Content-Type is {request.content_type!r}, must be {wanted}"
    if endpoint in WANTS_BODY and "application/json" not in request.headers.get("Accept", ""):
        yield "bad_header", f"{endpoint}: Accept must name application/json"


def token_breaches(endpoint: str, request: Request, body: dict[str, Any]) -> Iterator[Breach]:
    """The runner token stands in the header and, again, in the body."""
    header = request.headers.get("RUNNER-TOKEN")
    if header is None:
        yield "bad_header", f"{endpoint}: RUNNER-TOKEN is missing"
    elif header != body.get("token"):
        yield "bad_header", f"{endpoint}: RUNNER-TOKEN is not the token of the body"


def job_token_breaches(endpoint: str, header: str | None, body: dict[str, Any] | None) -> Iterator[Breach]:
    """The job token stands in the header; in the body of a PUT again."""
    if header is None:
        yield "bad_header", f"{endpoint}: JOB-TOKEN is missing"
    elif body is not None and body.get("token") != header:
        yield "bad_header", f"{endpoint}: JOB-TOKEN is not the token of the body"


def info_breaches(endpoint: str, body: dict[str, Any]) -> Iterator[Breach]:
    """Who is calling must be told in full each time, or the server forgets what it can do."""
    info = body.get("info")
    if not isinstance(info, dict):
        yield "bad_info", f"{endpoint}: info is missing"
        return
    for key in INFO_TEXTS:
        if not isinstance(info.get(key), str) or not info[key]:
            yield "bad_info", f"{endpoint}: info.{key} is missing"
    features = info.get("features")
    if not isinstance(features, dict) or not features:
        yield "bad_info", f"{endpoint}: info.features is missing"
    elif wrong := sorted(key for key, value in features.items() if not isinstance(value, bool)):
        yield "bad_info", f"{endpoint}: info.features {', '.join(wrong)} must be true or false"
    yield from _label_breaches(endpoint, info.get("labels"))


def system_id_breaches(endpoint: str, body: dict[str, Any]) -> Iterator[Breach]:
    """`s_` or `r_` and twelve letters or digits."""
    system_id = body.get("system_id")
    if not isinstance(system_id, str) or not SYSTEM_ID.fullmatch(system_id):
        yield "bad_system_id", f"{endpoint}: system_id {system_id!r} is not s_ or r_ and 12 letters or digits"


def _label_breaches(endpoint: str, labels: object) -> Iterator[Breach]:
    if labels is None:
        return
    if not isinstance(labels, dict):
        yield "bad_info", f"{endpoint}: info.labels is no object"
        return
    if len(labels) > MOST_LABELS:
        yield "bad_info", f"{endpoint}: {len(labels)} labels, at most {MOST_LABELS}"
    for key, value in labels.items():
        if not (isinstance(value, str) and LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(value)):
            yield "bad_info", f"{endpoint}: label {key!r} breaks GitLab's pattern"
