from __future__ import annotations

import dataclasses
import os
import pathlib
import secrets
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from fleet.demo.githost import GitHost
from fleet.demo.payload import GitSource
from fleet.execution.jobfile import Rendered
from tests.contract.execution.job_inputs import payload_of, render_with
from tests.contract.execution.stage_runner import Run, run_job


class GitServer:
    """Repositories over real HTTP that open with a job's token only, and a note of every request."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tokens: set[str] = set()
        self.seen: list[Request] = []
        self.failures_left = 0
        self.refuses_all = False
        self.host = GitHost(lambda token: token in self.tokens and not self.refuses_all)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, ssl_context=tls)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = Request(environ)
        self.seen.append(request)
        if self.failures_left > 0:
            self.failures_left -= 1
            return Response("out of order\n", 500)(environ, start_response)
        project, _, rest = request.path.strip("/").partition(".git/")
        return self.host.serve(request, project, rest)(environ, start_response)

    def token(self) -> str:
        token = secrets.token_hex(12)
        self.tokens.add(token)
        return token

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.host.close()


@pytest.fixture
def server() -> Iterator[GitServer]:
    found = GitServer()
    yield found
    found.close()


@dataclasses.dataclass
class Workplace:
    """One machine's home, on which jobs of one project run one after another."""

    home: pathlib.Path
    server: GitServer
    shell: str
    environment: dict[str, str]
    token: str = ""

    @property
    def project(self) -> pathlib.Path:
        return self.home / "builds/abcdefghi/1/group/project"

    def render(
        self,
        source: GitSource,
        *,
        variables: Mapping[str, str] | None = None,
        script: list[str] | None = None,
        depth: int = 20,
        payload: Mapping[str, Any] | None = None,
        git_info: Mapping[str, Any] | None = None,
        **runner: Any,
    ) -> Rendered:
        """The job file of this commit, with a token of its own."""
        self.token = self.server.token()
        address = f"{self.server.url}/{source.project}.git".replace("://", f"://gitlab-ci-token:{self.token}@")
        given = [{"key": "CI_JOB_TOKEN", "value": self.token, "masked": True}]
        given += [{"key": key, "value": value} for key, value in (variables or {}).items()]
        info = {
            "repo_url": address, "sha": source.sha, "ref": source.ref, "refspecs": source.refspecs, "depth": depth,
            **(git_info or {}),
        }  # fmt: skip
        whole: dict[str, Any] = {
            "script": script or ["true"], "variables": given, "token": self.token, "allow_git_fetch": True,
            "git_info": info, **(payload or {}),
        }  # fmt: skip
        return render_with(payload_of(**whole), self.home, shell=self.shell, **runner)

    def job(self, source: GitSource, **wishes: Any) -> Run:
        """Run a job of this commit; its token is dead afterwards."""
        rendered = self.render(source, **wishes)
        try:
            return run_job(rendered.job_file, self.environment)
        finally:
            self.server.tokens.discard(self.token)

    def files(self) -> dict[str, str]:
        """The working tree, without git's own."""
        return {
            path.relative_to(self.project).as_posix(): path.read_text()
            for path in sorted(self.project.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(self.project).parts
        }

    def holds(self, text: str) -> list[str]:
        """The files below the builds directory in which a text stands."""
        return [
            path.as_posix()
            for path in (self.home / "builds").rglob("*")
            if path.is_file() and text.encode() in path.read_bytes()
        ]


@pytest.fixture(params=["bash", "sh"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def workplace(tmp_path: pathlib.Path, server: GitServer, shell: str) -> Workplace:
    home = tmp_path / 'it\'s a "home" é'
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
    return Workplace(home=home, server=server, shell=shell, environment=environment)
