"""Uploads a job's artifacts and reports to GitLab (docs/reference/agent-frames.md, `upload_artifacts`).

Rule: as GitLab Runner's helper. Each item is one request whose body is the archive, made while it is sent and made anew
for each try: no file of it lies anywhere. 403 and 413 are final, 307 names another server, 503 is tried six times,
everything else three times. Items do not hang on each other: all are tried, and one that failed fails the stage.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
import urllib.parse

from . import archive, provenance
from .http import Answered, Client, HttpError, is_downgrade
from .meter import Meter
from .picking import pick
from .speech import fail, say, warn
from .tree import TreeError

TRIES = 3
TRIES_UNAVAILABLE = 6
UNAVAILABLE = 503
FIRST_DELAY_S, LONGEST_DELAY_S, LONGEST_ASKED_DELAY_S = 1.0, 5.0, 60.0
TOO_LARGE = (
    "GitLab does not take an archive of this size: upload less (`paths`, `exclude`), or let an administrator raise the"
    " maximum artifacts size of the project, the group or the instance"
)
REFUSED = (
    "GitLab refuses the upload: the job may have ended or been erased meanwhile, or its token may not do this; look at"
    " the job's page"
)


def run(transfer: dict, tree) -> int:
    """All items; 1 when one of them was not uploaded."""
    client = Client(
        transfer.get("tls") or {},
        timeout_s=transfer["timeout_s"],
        header_timeout_s=transfer["header_timeout_s"],
        environment=transfer.get("environment") or {},
    )
    results = [Upload(transfer, item, client, tree).run() for item in transfer["items"]]
    return 0 if all(results) else 1


class Upload:
    """One item."""

    def __init__(self, transfer: dict, item: dict, client: Client, tree) -> None:
        self._transfer = transfer
        self._item = item
        self._client = client
        self._tree = tree
        self._api = transfer["api"]
        self._form = item.get("format") or "zip"
        self._entries = []
        self._extra = ()

    @property
    def _what(self) -> str:
        return self._item.get("type") or "archive"

    def run(self) -> bool:
        """Whether the item is at GitLab, or there was nothing to upload."""
        say("Uploading artifacts...")
        item = self._item
        self._entries = pick(
            self._tree, item.get("paths") or [], item.get("exclude") or [], untracked=bool(item.get("untracked"))
        )
        if not self._entries:
            fail("No files to upload")
            return True
        if self._transfer.get("metadata") and self._form == "zip" and self._what == "archive":
            self._extra = (provenance.statement(self._transfer["metadata"], item, self._tree, self._entries),)
        try:
            return self._try_often()
        except (TreeError, OSError) as exc:
            fail('Artifacts "%s" were not uploaded: %s' % (self._what, _reason(exc)))
            return False

    def _try_often(self) -> bool:
        for number in itertools.count(1):
            status, asked_s = None, 0.0
            try:
                status, asked_s, words = self._try_once()
            except HttpError as exc:
                words = str(exc)
                warn('Uploading artifacts as "%s" to coordinator... %s' % (self._what, words))
            if status == 201:
                return True
            final = {401: REFUSED, 403: REFUSED, 413: TOO_LARGE}.get(status)
            most = TRIES_UNAVAILABLE if status == UNAVAILABLE else TRIES
            if final or number >= most:
                words = final or "%s after %d tries; the machine needs a way to %s" % (words, number, self._api)
                fail('Artifacts "%s" were not uploaded: %s' % (self._what, words))
                return False
            delay_s = max(min(FIRST_DELAY_S * 2 ** (number - 1), LONGEST_DELAY_S), asked_s)
            warn("Retrying in %g seconds..." % delay_s)
            time.sleep(delay_s)
        raise AssertionError

    def _try_once(self) -> tuple:
        """Status, how long GitLab asked to wait, and its words."""
        form = Form(archive.file_name(self._item.get("name") or "", self._form))
        with self._client.begin(
            "POST", self._address(), {**form.headers, "JOB-TOKEN": self._transfer["token"]}
        ) as sent:
            with contextlib.suppress(Answered):  # before all was sent; the answer says why
                self._send(form, sent)
            with sent.answer() as answer:
                return self._hear(answer)

    def _send(self, form: Form, sent) -> None:
        meter = Meter("Uploaded", self._transfer.get("meter_s") or 0)
        sink = Counted(sent, meter)
        sent.write(form.begin)
        contents = itertools.chain(self._tree.read(self._entries), ((entry, opened()) for entry, opened in self._extra))
        archive.write(self._form, contents, sink, self._transfer.get("level") or "default")
        sent.write(form.end)
        sent.end()

    def _address(self) -> str:
        named = (("expire_in", "expire_in"), ("artifact_format", "format"), ("artifact_type", "type"))
        query = urllib.parse.urlencode([(name, self._item[key]) for name, key in named if self._item.get(key)])
        address = "%sjobs/%d/artifacts" % (self._api, self._transfer["job_id"])
        return address + "?" + query if query else address

    def _hear(self, answer) -> tuple:
        tell = say if answer.status == 201 else warn
        traced = answer.header("X-Request-Id")
        line = 'Uploading artifacts as "%s" to coordinator... %s  id=%d' % (
            self._what, answer.line, self._transfer["job_id"],
        )  # fmt: skip
        tell(line + (" correlation_id=%s" % traced if traced else ""))
        words = answer.line
        if answer.status == 307:
            words = self._move(answer.header("Location")) or words
        elif answer.status != 201:
            words += _message(answer.text())
        return answer.status, _asked_delay(answer.header("Retry-After")), words

    def _move(self, location: str) -> str:
        """GitLab names another server for this job's artifacts; why it is not taken."""
        old, new = urllib.parse.urlsplit(self._api), urllib.parse.urlsplit(location)
        if new.scheme not in {"http", "https"} or not new.netloc:
            return "307 without an address to go on with"
        if is_downgrade(old.scheme, new.scheme):
            return "307 from https to http, which is not followed: the job's token would be sent in the clear"
        self._api = urllib.parse.urlunsplit((new.scheme, new.netloc, old.path, "", ""))
        return ""


class Counted:
    """A sink that tells a meter."""

    def __init__(self, sink, meter: Meter) -> None:
        self._sink = sink
        self._meter = meter

    def write(self, data: bytes) -> None:
        """Pass on."""
        self._sink.write(data)
        self._meter.add(len(data))


class Form:
    """A multipart form with one part, `file`."""

    def __init__(self, file_name: str) -> None:
        mark = os.urandom(24).hex()
        quoted = file_name.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "%0D").replace("\n", "%0A")
        self.headers = {"Content-Type": "multipart/form-data; boundary=" + mark, "Accept": "application/json"}
        self.begin = (
            '--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n" % (mark, quoted)
        ).encode("utf-8", "surrogateescape")
        self.end = ("\r\n--%s--\r\n" % mark).encode()


def _message(text: str) -> str:
    """GitLab's own words in an answer, if any."""
    try:
        said = json.loads(text).get("message")
    except (ValueError, AttributeError):
        return ""
    return " (%s)" % (said if isinstance(said, str) else json.dumps(said))[:500] if said else ""


def _asked_delay(text: str) -> float:
    return min(float(text), LONGEST_ASKED_DELAY_S) if text.isdigit() else 0.0


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError):
        return "%s: %s" % (exc.filename, exc.strerror) if exc.filename else str(exc.strerror or exc)
    return str(exc)
