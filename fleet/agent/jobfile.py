"""Checks a job file before anything is promised for it.

Rule: what the supervisor reads without looking is looked at here, so that a broken job file is a refusal of `start` and
not a death of the supervisor. The fields stand in docs/reference/agent-frames.md.
"""

from __future__ import annotations

import json
import re

from . import stages
from .docker import section as containers
from .errors import Refused
from .shells import SHELLS

STAGE_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}\Z")
NUMBER = (int, float)
FIELDS = (
    ("user", (str, type(None))),
    ("cwd", str),
    ("environment", (dict, type(None))),
    ("directories", (list, type(None))),
    ("files", (list, type(None))),
    ("script_timeout_s", (*NUMBER, type(None))),
    ("timeout_s", (*NUMBER, type(None))),
    ("abort_grace_s", NUMBER),
    ("cleanup_paths", (list, type(None))),
    ("keeps", (list, type(None))),
    ("trace", dict),
    ("stages", list),
    ("containers", (dict, type(None))),
)
DEFAULTS = {
    "user": None,
    "shell": "sh",
    "environment": {},
    "abort_grace_s": 10,
    "trace": {},
    "timeout_s": None,
    "containers": None,
}
OPTIONAL = frozenset({"directories", "files", "script_timeout_s", "cleanup_paths", "keeps"})
TRANSFERS = frozenset({"upload_artifacts", "download_artifacts", "restore_cache", "archive_cache"})
TRANSFER_FIELDS = (("root", str), ("items", list), ("timeout_s", NUMBER))
TRACE_LISTS = ("masks", "mask_prefixes", "mask_parameters")


def parse(body: bytes) -> dict:
    """The job file; Refused with `bad_job_file` and the field that is wrong."""
    try:
        job = json.loads(body)
    except ValueError as exc:
        raise _bad("it is not JSON") from exc
    if not isinstance(job, dict):
        raise _bad("it is no object")
    if job.get("format") != 1:
        raise _bad("format %r is not 1: the agent is of another version than the manager" % (job.get("format"),))
    job = {**DEFAULTS, **job}
    for name, kinds in FIELDS:
        if (name in job or name not in OPTIONAL) and not isinstance(job.get(name), kinds):
            raise _bad("`%s` is missing or of the wrong type" % name)
    if job["shell"] not in SHELLS:
        raise _bad("`shell` is %r, not one of %s" % (job["shell"], ", ".join(SHELLS)))
    _check_paths(job)
    _check_environment(job["environment"] or {})
    _check_trace(job["trace"])
    if job["containers"]:
        problem = containers.problem_with(job["containers"])
        if problem:
            raise _bad(problem)
    for stage in job["stages"]:
        _check_stage(stage)
    return job


def _check_paths(job: dict) -> None:
    paths = [job["cwd"], *(job.get("cleanup_paths") or [])]
    for entry in (job.get("directories") or []) + (job.get("files") or []):
        if not isinstance(entry, dict) or not isinstance(entry.get("mode", 0), int):
            raise _bad("an entry of `directories` or `files` is malformed")
        paths.append(entry.get("path"))
    for entry in job.get("keeps") or []:
        if not isinstance(entry, dict):
            raise _bad("an entry of `keeps` is malformed")
        paths += [entry.get("path"), entry.get("root")]
    for entry in job.get("files") or []:
        if not isinstance(entry.get("text"), str):
            raise _bad("an entry of `files` has no text")
    for path in paths:
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise _bad("%r is no absolute path" % (path,))


def _check_environment(environment: dict) -> None:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, str) or "\0" in value:
            raise _bad("`environment` holds %r, which is no variable" % (name,))


def _check_trace(trace: dict) -> None:
    for name in TRACE_LISTS:
        values = trace.get(name) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise _bad("`trace.%s` is no list of texts" % name)
    if not isinstance(trace.get("limit_bytes"), (int, type(None))):
        raise _bad("`trace.limit_bytes` is no number")


def _check_stage(stage: object) -> None:
    if not isinstance(stage, dict) or not isinstance(stage.get("name"), str) or not STAGE_NAME.match(stage["name"]):
        raise _bad("a stage has no name")
    if stage.get("kind") not in stages.KINDS:
        raise _bad("stage %s is of kind %r, which this agent does not know" % (stage["name"], stage.get("kind")))
    for name in ("script", "before_retry"):
        if not isinstance(stage.get(name), (str, type(None))):
            raise _bad("`%s` of stage %s is no text" % (name, stage["name"]))
    for name in ("timeout_s", "attempts", "retry_delay_s"):
        if not isinstance(stage.get(name, 0), (*NUMBER, type(None))):
            raise _bad("`%s` of stage %s is no number" % (name, stage["name"]))
    if stage.get("transfer") is not None:
        _check_transfer(stage["transfer"], stage["name"])


def _check_transfer(transfer: object, stage: str) -> None:
    if not isinstance(transfer, dict) or transfer.get("do") not in TRANSFERS:
        raise _bad("`transfer` of stage %s is none that this agent knows" % stage)
    for name, kinds in TRANSFER_FIELDS:
        if not isinstance(transfer.get(name), kinds):
            raise _bad("`transfer.%s` of stage %s is missing or of the wrong type" % (name, stage))
    if not transfer["root"].startswith("/") or "\0" in transfer["root"]:
        raise _bad("`transfer.root` of stage %s is no absolute path" % stage)
    if not all(isinstance(item, dict) for item in transfer["items"]):
        raise _bad("`transfer.items` of stage %s holds something else than objects" % stage)


def _bad(message: str) -> Refused:
    return Refused("bad_job_file", "the job file is wrong: " + message)
