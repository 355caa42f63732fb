"""Serves bare repositories over smart HTTP by `git http-backend`, with GitLab's job-token login.

Rule: reading needs user `gitlab-ci-token` and a live job's token; nobody may push. Commits are made
with plumbing in the bare repository, so that no work tree is needed. A commit that a job names is
fetched by its id, as GitLab allows.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping

from werkzeug.wrappers import Request, Response

from fleet.demo import lfs
from fleet.demo.payload import GitSource

IDENTITY = {
    "GIT_AUTHOR_NAME": "Pretender", "GIT_AUTHOR_EMAIL": "pretender@demo.invalid",
    "GIT_COMMITTER_NAME": "Pretender", "GIT_COMMITTER_EMAIL": "pretender@demo.invalid",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
}  # fmt: skip
BACKEND_TIMEOUT_S = 120


class GitHost:
    """The repositories of one pretend GitLab, in a directory of their own."""

    def __init__(self, opens: Callable[[str], bool]) -> None:
        self._opens = opens
        self._root: pathlib.Path | None = None

    @property
    def root(self) -> pathlib.Path:
        """Made when it is first needed; `close` removes it."""
        if self._root is None:
            self._root = pathlib.Path(tempfile.mkdtemp(prefix="pretend-gitlab-"))
        return self._root

    def close(self) -> None:
        """Remove every repository."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def commit(
        self,
        project: str,
        files: Mapping[str, str],
        *,
        ref: str = "main",
        message: str = "change",
        tag: str = "",
        submodules: Mapping[str, tuple[str, str]] | None = None,
        large: Mapping[str, str] | None = None,
    ) -> GitSource:
        """Commit exactly these files to a branch (made if absent), perhaps tagged; the source for a job.

        `submodules` maps a path to (url, commit id); `.gitmodules` is written for them. `large` files are git-lfs'.
        """
        repository = self._repository(project)
        modules = submodules or {}
        contents = lfs.with_pointers(repository, files, large or {})
        if modules:
            contents[".gitmodules"] = "".join(
                f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, (url, _) in modules.items()
            )
        with tempfile.TemporaryDirectory(prefix="index-", dir=self.root) as scratch:
            index = {"GIT_INDEX_FILE": os.path.join(scratch, "index")}
            for path, text in contents.items():
                blob = _git(repository, "hash-object", "-w", "--stdin", stdin=text)
                mode = "100755" if text.startswith("#!") else "100644"
                _git(repository, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", env=index)
            for path, (_, sha) in modules.items():
                _git(repository, "update-index", "--add", "--cacheinfo", f"160000,{sha},{path}", env=index)
            tree = _git(repository, "write-tree", env=index)
        before = _git(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{ref}", check=False)
        parents = ["-p", before] if before else []
        sha = _git(repository, "commit-tree", tree, "-m", message, *parents)
        _git(repository, "update-ref", f"refs/heads/{ref}", sha)
        if tag:
            _git(repository, "update-ref", f"refs/tags/{tag}", sha)
        return GitSource(
            project=project,
            sha=sha,
            ref=tag or ref,
            ref_type="tag" if tag else "branch",
            before_sha=before or "0" * 40,
        )

    def serve(self, request: Request, repository: str, rest: str) -> Response:
        """One request of a git client."""
        login = request.authorization
        if login is None or login.type != "basic":
            return Response("HTTP Basic: Access denied\n", 401, headers={"WWW-Authenticate": 'Basic realm="GitLab"'})
        if login.username != "gitlab-ci-token" or not self._opens(login.password or ""):
            return Response("HTTP Basic: Access denied\n", 403)
        if not (self.root / f"{repository}.git").is_dir() or ".." in repository:
            return Response("The project you were looking for could not be found\n", 404)
        if rest.startswith(lfs.API):
            return lfs.serve(request, self.root / f"{repository}.git", rest)
        return self._run_backend(request, f"/{repository}.git/{rest}")

    def _run_backend(self, request: Request, path: str) -> Response:
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "REQUEST_METHOD": request.method,
            "QUERY_STRING": request.query_string.decode(),
            "CONTENT_TYPE": request.content_type or "",
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": request.remote_addr or "",
            **IDENTITY,
        }
        body = request.get_data()
        done = subprocess.run(
            ["git", "http-backend"],
            env=environ | {"CONTENT_LENGTH": str(len(body))},
            input=body,
            capture_output=True,
            timeout=BACKEND_TIMEOUT_S,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.partition(": ") for line in head.decode("latin-1").split("\r\n") if line]
        headers = [(key, value) for key, _, value in fields if key.lower() != "status"]
        status = next((int(value.split()[0]) for key, _, value in fields if key.lower() == "status"), 200)
        if done.returncode != 0 and not fields:
            status = 500
        return Response(content, status, headers=headers)

    def _repository(self, project: str) -> pathlib.Path:
        path = self.root / f"{project}.git"
        if not path.is_dir():
            path.mkdir(parents=True)
            _git(path, "init", "--quiet", "--bare", "--initial-branch=main", ".")
            for key in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
                _git(path, "config", key, "true")
            _git(path, "config", "http.receivepack", "false")
        return path


def _git(
    repository: pathlib.Path, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None, check: bool = True
) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=repository,
        env={"PATH": os.environ.get("PATH", os.defpath), **IDENTITY, **(env or {})},
        input=stdin.encode(),
        capture_output=True,
        check=check,
    )
    return done.stdout.decode().strip()
