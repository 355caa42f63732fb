"""The calls of a machine for artifacts: upload and download.

Rule: as GitLab's API behind Workhorse. An upload must be what the job's payload asked for, in one streamed form; a
direct download is a redirect to object storage, which must never be shown a token of GitLab's (`object_storage`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response
from werkzeug.wsgi import FileWrapper

from fleet.demo.artifacts import MAGIC, SUFFIX, Artifact, Received, receive
from fleet.demo.call import Call, DroppedError, answer, refusal
from fleet.demo.conduct import Breach
from fleet.demo.jobs import ENDED, Job

BOUNDARY = re.compile(r'multipart/form-data; *boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?')
UPLOAD_QUERY = ("expire_in", "artifact_format", "artifact_type")
NEVER_UPLOADED = frozenset({"metadata", "trace"})


def upload(call: Call) -> Response:
    """POST jobs/:id/artifacts."""
    with call.state.lock:
        job = _job(call)
    if isinstance(job, Response):
        _drain(call)
        return job
    query = call.request.args
    call.blame(_query_breaches(query))
    match = BOUNDARY.fullmatch(call.request.headers.get("Content-Type", ""))
    if match is None:
        call.blame([("bad_header", f"artifact_upload: Content-Type is {call.request.content_type!r}")])
        _drain(call)
        return refusal(400, "400 Bad request - no multipart form")
    said = {name: query.get(name, "") for name in UPLOAD_QUERY}
    path = call.state.artifacts.place()
    try:
        got = receive(call.request.stream, match[1], path)
    except (ValueError, OSError):  # the client broke off in the middle, which it may
        raise DroppedError from None
    call.blame(got.breaches)
    call.blame(_content_breaches(said, got))
    call.blame(_payload_breaches(job, said))
    limit = call.state.knobs.artifacts_limit_bytes
    if limit and got.size > limit:
        path.unlink(missing_ok=True)
        return refusal(413, "413 Request Entity Too Large")
    call.state.artifacts.keep(
        Artifact(
            job_id=job.id,
            filename=got.filename,
            size=got.size,
            sha256=got.sha256,
            path=str(path),
            **said,
        )
    )
    with call.state.lock:
        job.note("artifact", f"{said['artifact_type']} {got.filename} {got.size}")
    return answer(201, {"id": job.id}, {"X-Request-Id": hashlib.sha256(str(path).encode()).hexdigest()[:26]})


def download(call: Call) -> Response:
    """GET jobs/:id/artifacts."""
    token = call.request.headers.get("JOB-TOKEN")
    state = call.state
    if token is None:
        call.blame([("bad_header", "artifact_download: JOB-TOKEN is missing")])
        return refusal(401, "401 Unauthorized")
    if state.artifacts.opened_by(token) != call.job_id:
        with state.lock:
            driven = state.driven_by(token)
        if driven is None or driven[0].state in ENDED:
            call.blame([("wrong_job_token", "artifact_download: the token does not open these artifacts")])
            return refusal(403, "403 Forbidden")
    wanted = call.request.args.get("direct_download", "false")
    if wanted not in {"true", "false"} or set(call.request.args) - {"direct_download"}:
        call.blame([("bad_query", f"artifact_download: {dict(call.request.args)}")])
    found = state.artifacts.archive(call.job_id or 0)
    if found is None:
        return refusal(404, "404 Not Found")
    if wanted == "true" and state.storage_url:
        return answer(302, None, {"Location": state.storage_url + state.artifacts.sign(found)})
    return content_of(found)


def content_of(found: Artifact) -> Response:
    """The file itself."""
    file = pathlib.Path(found.path).open("rb")  # noqa: SIM115  the response closes it
    headers = {"Content-Length": str(found.size), "Content-Disposition": f'attachment; filename="{found.filename}"'}
    return Response(
        FileWrapper(file), status=200, content_type="application/octet-stream", headers=headers, direct_passthrough=True
    )


def _job(call: Call) -> Job | Response:
    """The job whose token came, if it may upload now."""
    token = call.request.headers.get("JOB-TOKEN")
    job = call.state.jobs.get(call.job_id or 0)
    if token is None:
        call.blame([("bad_header", "artifact_upload: JOB-TOKEN is missing")])
    if job is None or job.erased:
        return refusal(404, "404 Not Found")
    driven = call.state.driven_by(token or "")
    if driven is None or driven[0] is not job:
        if token is not None:
            call.blame([("wrong_job_token", "artifact_upload: the token does not open this job")])
        return refusal(403, "403 Forbidden")
    if driven[1].superseded or job.state in ENDED:
        if job.final_word is not None and not driven[1].superseded:
            call.blame([("artifact_after_end", f"an upload after the job ended as {job.final_word.state}")])
        return refusal(403, "403 Forbidden - Job is not running")
    return job


def _drain(call: Call) -> None:
    try:
        while call.request.stream.read(1 << 18):
            pass
    except (ValueError, OSError):
        raise DroppedError from None


def _query_breaches(query: MultiDict[str, str]) -> Iterator[Breach]:
    for name, values in query.lists():
        if name not in UPLOAD_QUERY:
            yield "bad_query", f"artifact_upload: {name} is unknown"
        elif len(values) > 1 or not values[0]:
            yield "bad_query", f"artifact_upload: {name} is {values}, must be one value or absent"


def _content_breaches(said: dict[str, str], got: Received) -> Iterator[Breach]:
    form = said["artifact_format"] or "zip"
    if said["artifact_type"] in NEVER_UPLOADED:
        yield "bad_artifact", f"type {said['artifact_type']} is never a client's"
    if form not in {*MAGIC, "raw"}:
        yield "bad_artifact", f"format {form!r} is unknown"
    elif not got.begin.startswith(MAGIC.get(form, b"")):
        yield "bad_artifact", f"format {form}, and the content begins with {got.begin!r}"
    if not got.filename.endswith(SUFFIX.get(form, "")) or "/" in got.filename:
        yield "bad_artifact", f"format {form}, and the file is called {got.filename!r}"


def _payload_breaches(job: Job, said: dict[str, str]) -> Iterator[Breach]:
    """GitLab asked for exactly these."""
    asked: list[dict[str, Any]] = job.payload.get("artifacts") or []
    pair = said["artifact_type"], said["artifact_format"]
    found = [each for each in asked if (each.get("artifact_type") or "", each.get("artifact_format") or "") == pair]
    if not found:
        yield "bad_artifact", f"the payload has no artifact of type and format {pair}"
    elif not any(
        "$" in (each.get("expire_in") or "") or (each.get("expire_in") or "") == said["expire_in"] for each in found
    ):
        yield "bad_artifact", f"the payload has no such artifact that ends in {said['expire_in']!r}"


def dependency(job_id: int, name: str, artifact: Artifact, token: str) -> dict[str, Any]:
    """A dependency as the payload of a later job names it."""
    said = dataclasses.asdict(artifact)
    return {
        "id": job_id,
        "name": name,
        "token": token,
        "artifacts_file": {"filename": said["filename"], "size": said["size"]},
    }
