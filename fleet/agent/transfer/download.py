"""Downloads the artifacts of the jobs that a job depends on (docs/reference/agent-frames.md, `download_artifacts`).

Rule: as GitLab Runner's helper, in order and each with its own token. The first try asks for a direct download from
object storage, the later ones for one through GitLab; the job's token never follows a redirect to another server. 401,
403 and 404 are final. An archive is unpacked when all of it has come.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time

from .extract import extract
from .http import Client, HttpError
from .meter import Meter
from .speech import fail, say, size, warn
from .tree import TreeError

TRIES = 3
DELAY_S = 1.0
HEADER = "JOB-TOKEN"
FINAL = {
    401: "unauthorized: the other job's token is not valid any more; run this job again",
    403: "forbidden: this job may not read the artifacts of the other project or job; look at its access settings",
    404: "not found: they have expired, were deleted, or the other job made none; run that job again",
}


def run(transfer: dict, tree) -> int:
    """All items in order; 1 at the first that could not be fetched."""
    client = Client(
        transfer.get("tls") or {},
        timeout_s=transfer["timeout_s"],
        header_timeout_s=transfer["header_timeout_s"],
        environment=transfer.get("environment") or {},
    )
    for item in transfer["items"]:
        say("Downloading artifacts for %s (%d)..." % (item.get("name") or "job", item["id"]))
        with spool(tree.root) as file:
            if not Download(transfer, item, client).into(file):
                return 1
            try:
                extract(file, tree.fresh(), name=item.get("filename") or "", keep_links=_keeps(transfer))
            except TreeError as exc:
                fail("Artifacts of %s (%d) were not unpacked: %s" % (item.get("name") or "job", item["id"], exc))
                return 1
    return 0


def spool(root: str):
    """A file without a name on the disk of a directory, for what must be there as a whole before it is used."""
    for folder in (os.path.dirname(root.rstrip("/")), root):
        with contextlib.suppress(OSError):
            return tempfile.TemporaryFile(dir=folder)
    return tempfile.TemporaryFile()


class Download:
    """One item."""

    def __init__(self, transfer: dict, item: dict, client: Client) -> None:
        self._transfer = transfer
        self._item = item
        self._client = client

    def into(self, file) -> bool:
        """Whether all of it is in the file."""
        for number in range(1, TRIES + 1):
            is_direct = number == 1 and self._transfer.get("direct", True)
            try:
                final = self._try_once(file, is_direct=is_direct)
                words = ""
            except HttpError as exc:
                final, words = None, str(exc)
                warn("Downloading artifacts from coordinator... %s" % words)
            if final == 200:
                return True
            if final in FINAL:
                fail("Artifacts of %s were not downloaded: %s" % (self._shown, FINAL[final]))
                return False
            if number < TRIES:
                warn("Retrying...")
                time.sleep(DELAY_S)
        fail(
            "Artifacts of %s were not downloaded after %d tries; the machine needs a way to %s, and to its object"
            " storage" % (self._shown, TRIES, self._transfer["api"])
        )
        return False

    @property
    def _shown(self) -> str:
        return "%s (%d)" % (self._item.get("name") or "job", self._item["id"])

    def _try_once(self, file, *, is_direct: bool) -> int:
        address = "%sjobs/%d/artifacts" % (self._transfer["api"], self._item["id"])
        if is_direct:
            address += "?direct_download=true"
        with self._client.fetch(address, {HEADER: self._item["token"]}, private=(HEADER,)) as answer:
            line = "Downloading artifacts from coordinator... %s  id=%d" % (
                "ok" if answer.status == 200 else answer.line, self._item["id"],
            )  # fmt: skip
            if answer.status != 200:
                warn(line)
                return answer.status
            file.seek(0)
            file.truncate()
            meter = Meter("Downloaded", self._transfer.get("meter_s") or 0)
            for piece in answer.pieces():
                file.write(piece)
                meter.add(len(piece))
            file.flush()
            say("%s (%s)" % (line, size(meter.count)))
            return 200


def _keeps(transfer: dict) -> bool:
    return bool(transfer.get("keep_links"))
