"""What the pretend GitLab keeps of artifacts: files in a folder of its own, and what was said about each.

Rule: content is streamed to disk, for a test may upload gigabytes. A breach of the form is told as (slug, detail), as
in `conduct`; whether an upload is welcome is `artifacts_api`'s business.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pathlib
import secrets
import shutil
import tempfile
import threading
from typing import Any, Protocol

from fleet.demo.conduct import Breach

FIRST_OFFERED_ID = 900_001
PIECE_BYTES = 256 * 1024
HEAD_LIMIT = 16 * 1024
MAGIC = {"zip": b"PK", "zipzstd": b"PK", "gzip": b"\x1f\x8b", "tarzstd": b"\x28\xb5\x2f\xfd"}
SUFFIX = {"zip": ".zip", "zipzstd": ".zip", "gzip": ".gz", "tarzstd": ".tar.zst"}


class Stream(Protocol):
    """A request's body."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file that a job uploaded; `path` is where the server keeps it."""

    job_id: int
    artifact_type: str
    artifact_format: str
    expire_in: str
    filename: str
    size: int
    sha256: str
    path: str

    def view(self) -> dict[str, Any]:
        """For tests."""
        return dataclasses.asdict(self)


class Artifacts:
    """All of them; safe to use from any thread."""

    def __init__(self) -> None:
        self._folder: pathlib.Path | None = None
        self._found: dict[int, list[Artifact]] = {}
        self._tokens: dict[str, int] = {}
        self._signed: dict[str, Artifact] = {}
        self._numbers = itertools.count(1)
        self._ids = itertools.count(FIRST_OFFERED_ID)
        self._lock = threading.Lock()

    def place(self) -> pathlib.Path:
        """Where the next file goes."""
        with self._lock:
            if self._folder is None:
                self._folder = pathlib.Path(tempfile.mkdtemp(prefix="pretend-gitlab-artifacts-"))
            return self._folder / str(next(self._numbers))

    def keep(self, artifact: Artifact) -> None:
        """The last one of a type counts."""
        with self._lock:
            others = self._found.setdefault(artifact.job_id, [])
            for other in [each for each in others if each.artifact_type == artifact.artifact_type]:
                others.remove(other)
                pathlib.Path(other.path).unlink(missing_ok=True)
            others.append(artifact)

    def of(self, job_id: int) -> list[Artifact]:
        """What a job uploaded, in its order."""
        with self._lock:
            return list(self._found.get(job_id, ()))

    def archive(self, job_id: int) -> Artifact | None:
        """What other jobs download."""
        return next((each for each in self.of(job_id) if each.artifact_type in {"", "archive"}), None)

    def offer(self, content: bytes, filename: str) -> int:
        """Artifacts of a job that never ran here; its made-up id."""
        path = self.place()
        path.write_bytes(content)
        with self._lock:
            job_id = next(self._ids)
        digest = hashlib.sha256(content).hexdigest()
        self.keep(
            Artifact(
                job_id=job_id, artifact_type="archive", artifact_format="zip", expire_in="", filename=filename,
                size=len(content), sha256=digest, path=str(path),
            )
        )  # fmt: skip
        return job_id

    def forget(self, job_id: int) -> None:
        """They have expired."""
        with self._lock:
            for each in self._found.pop(job_id, ()):
                pathlib.Path(each.path).unlink(missing_ok=True)

    def token_for(self, job_id: int) -> str:
        """A token that opens the artifacts of this job and of no other."""
        token = "glcbt-" + secrets.token_urlsafe(20)
        with self._lock:
            self._tokens[token] = job_id
        return token

    def opened_by(self, token: str) -> int | None:
        """Which job's artifacts a token opens."""
        with self._lock:
            return self._tokens.get(token)

    def sign(self, artifact: Artifact) -> str:
        """A secret path by which object storage gives the file out."""
        signature = secrets.token_urlsafe(24)
        with self._lock:
            self._signed[signature] = artifact
        return f"/bucket/{artifact.job_id}/artifacts?X-Signature={signature}"

    def signed(self, signature: str) -> Artifact | None:
        """What a signature gives out."""
        with self._lock:
            return self._signed.get(signature)

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclasses.dataclass(slots=True, kw_only=True)
class Received:
    """One multipart form with a file, as it came; `breaches` is what was wrong with it."""

    filename: str = ""
    size: int = 0
    sha256: str = ""
    begin: bytes = b""
    breaches: list[Breach] = dataclasses.field(default_factory=list)


def receive(stream: Stream, boundary: str, path: pathlib.Path) -> Received:
    """Read a form of one part, `file`, and write its content to a file."""
    got = Received()
    buffer = _until_head(stream)
    head, found, rest = buffer.partition(b"\r\n\r\n")
    if not found:
        got.breaches.append(("bad_form", "the form has no part with a head"))
        return got
    got.filename = _read_head(head, boundary, got.breaches)
    digest = hashlib.sha256()
    mark = f"\r\n--{boundary}".encode()
    with path.open("wb") as file:
        while (at := rest.find(mark)) < 0:
            _store(got, file, digest, rest[: -len(mark)])
            rest = rest[-len(mark) :]
            piece = stream.read(PIECE_BYTES)
            if not piece:
                got.breaches.append(("bad_form", "the form is not ended by its boundary"))
                return got
            rest += piece
        _store(got, file, digest, rest[:at])
    after = rest[at + len(mark) :] + stream.read(PIECE_BYTES)
    if not after.startswith(b"--"):
        got.breaches.append(("bad_form", "the form has more than one part"))
    while stream.read(PIECE_BYTES):
        pass
    got.sha256 = digest.hexdigest()
    return got


def _until_head(stream: Stream) -> bytes:
    buffer = b""
    while b"\r\n\r\n" not in buffer and len(buffer) < HEAD_LIMIT:
        piece = stream.read(HEAD_LIMIT)
        if not piece:
            break
        buffer += piece
    return buffer


def _read_head(head: bytes, boundary: str, breaches: list[Breach]) -> str:
    lines = head.decode("utf-8", "replace").split("\r\n")
    if lines[0] != f"--{boundary}":
        breaches.append(("bad_form", "the form does not begin with its boundary"))
    disposition = next((line for line in lines if line.lower().startswith("content-disposition:")), "")
    if ' name="file"' not in disposition:
        breaches.append(("bad_form", f"the part is not called file: {disposition!r}"))
    _, found, name = disposition.partition(' filename="')
    if not found or not name.endswith('"'):
        breaches.append(("bad_form", f"the part has no file name: {disposition!r}"))
    return name[:-1].replace('\\"', '"').replace("\\\\", "\\")


def _store(got: Received, file: Any, digest: Any, data: bytes) -> None:
    got.begin = (got.begin + data[:8])[:8]
    got.size += len(data)
    digest.update(data)
    file.write(data)
