"""Large files of the pretend GitLab's repositories: git-lfs' batch API for downloads, and pointers for commits.

Rule: as GitLab does it, each object is offered with the login that the client came with; nobody may upload.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from werkzeug.wrappers import Request, Response

API = "info/lfs/objects"
MEDIA_TYPE = "application/vnd.git-lfs+json"
OID = re.compile(r"[0-9a-f]{64}")


def with_pointers(repository: pathlib.Path, files: Mapping[str, str], large: Mapping[str, str]) -> dict[str, str]:
    """The files to commit, in which each large one is a pointer to what is kept beside the repository."""
    if not large:
        return dict(files)
    folder = _folder(repository)
    folder.mkdir(exist_ok=True)
    pointers = {}
    for path, text in large.items():
        content = text.encode()
        oid = hashlib.sha256(content).hexdigest()
        (folder / oid).write_bytes(content)
        pointers[path] = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
    attributes = "".join(f"{path} filter=lfs diff=lfs merge=lfs -text\n" for path in large)
    return {**files, **pointers, ".gitattributes": files.get(".gitattributes", "") + attributes}


def serve(request: Request, repository: pathlib.Path, rest: str) -> Response:
    """One call of git-lfs for this repository; `rest` begins with `API`."""
    if request.method == "POST" and rest == f"{API}/batch":
        return _batch(request, repository)
    oid = rest.removeprefix(f"{API}/")
    path = _folder(repository) / oid
    if request.method != "GET" or not OID.fullmatch(oid) or not path.is_file():
        return Response("Not found\n", 404)
    return Response(path.read_bytes(), 200, content_type="application/octet-stream")


def _batch(request: Request, repository: pathlib.Path) -> Response:
    asked = json.loads(request.get_data() or b"{}")
    if asked.get("operation") != "download":
        return Response(json.dumps({"message": "Access forbidden"}), 403, content_type=MEDIA_TYPE)
    base = request.base_url.removesuffix("/batch")
    login = request.headers.get("Authorization", "")
    objects = [_offer(repository, each, base, login) for each in asked.get("objects") or ()]
    return Response(json.dumps({"transfer": "basic", "objects": objects}), 200, content_type=MEDIA_TYPE)


def _offer(repository: pathlib.Path, asked: Mapping[str, Any], base: str, login: str) -> dict[str, Any]:
    oid = str(asked.get("oid", ""))
    offer: dict[str, Any] = {"oid": oid, "size": asked.get("size", 0)}
    if not OID.fullmatch(oid) or not (_folder(repository) / oid).is_file():
        return offer | {"error": {"code": 404, "message": "Object does not exist on the server"}}
    return offer | {"actions": {"download": {"href": f"{base}/{oid}", "header": {"Authorization": login}}}}


def _folder(repository: pathlib.Path) -> pathlib.Path:
    return repository / "lfs-objects"
