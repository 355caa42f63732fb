"""A job file is checked field by field before anything is promised for it."""

from __future__ import annotations

import json

import pytest

from fleet.agent.errors import Refused
from fleet.agent.jobfile import parse

GOOD = {
    "format": 1,
    "cwd": "/home/ci",
    "shell": "bash",
    "trace": {"masks": ["x"]},
    "stages": [{"name": "step_script", "kind": "step", "script": "true"}],
}


def upload(do: str, **special: object) -> dict:
    """A stage with a transfer."""
    transfer = {"do": do, "root": "/builds/x", "items": [], "timeout_s": 60, **special}
    return {"name": "upload", "kind": "upload_artifacts", "transfer": transfer}


def test_a_transfer_is_a_stage() -> None:
    parse(json.dumps({**GOOD, "stages": [upload("upload_artifacts"), upload("download_artifacts")]}).encode())


def test_a_good_job_file_gets_its_defaults() -> None:
    job = parse(json.dumps(GOOD).encode())
    assert (job["user"], job["abort_grace_s"], job["environment"]) == (None, 10, {})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 2}, "version"),
        ({"cwd": "relative"}, "absolute path"),
        ({"cwd": None}, "cwd"),
        ({"shell": "fish"}, "shell"),
        ({"stages": None}, "stages"),
        ({"stages": [{"name": "a b", "kind": "step"}]}, "no name"),
        ({"stages": [{"name": "a", "kind": "dance"}]}, "dance"),
        ({"stages": [{"name": "a", "kind": "step", "script": 5}]}, "script"),
        ({"stages": [{"name": "a", "kind": "step", "timeout_s": "1h"}]}, "timeout_s"),
        ({"environment": {"A=B": "x"}}, "environment"),
        ({"environment": {"A": "x\0y"}}, "environment"),
        ({"files": [{"path": "/x"}]}, "text"),
        ({"files": [{"path": "x", "text": ""}]}, "absolute"),
        ({"directories": ["/x"]}, "malformed"),
        ({"cleanup_paths": ["tmp"]}, "absolute"),
        ({"trace": {"masks": "secret"}}, "masks"),
        ({"trace": {"limit_bytes": "4k"}}, "limit_bytes"),
        ({"script_timeout_s": "5m"}, "script_timeout_s"),
        ({"user": 5}, "user"),
        ({"stages": [upload("dance")]}, "none that this agent knows"),
        ({"stages": [upload("upload_artifacts", root="x")]}, "no absolute path"),
        ({"stages": [upload("upload_artifacts", items={})]}, "transfer.items"),
        ({"stages": [upload("download_artifacts", items=[1])]}, "objects"),
        ({"stages": [upload("download_artifacts", timeout_s=None)]}, "timeout_s"),
    ],
)
def test_what_is_wrong_is_named(change: dict, word: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(json.dumps({**GOOD, **change}).encode())
    assert refused.value.slug == "bad_job_file"
    assert word in refused.value.message


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        parse(body)
