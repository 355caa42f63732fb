"""Short questions go to the engine's own socket, where that is surely the engine that the program would ask."""

from __future__ import annotations

import http.server
import json
import pathlib
import socketserver
import threading
from collections.abc import Iterator

import pytest

from fleet.agent.docker import socket


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/cut":
            return
        status, content = (200, b'{"Id": "sha"}') if self.path == "/images/a/b:1/json" else (404, b"{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.path != "/nonsense" else b"<<")

    def do_POST(self) -> None:
        self.server.got = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.end_headers()

    def do_DELETE(self) -> None:
        self.send_response(204 if self.path == "/containers/mine?force=1&v=1" else 409)
        self.end_headers()

    def address_string(self) -> str:
        return "here"

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    got: object = None


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Server]:
    with Server(str(tmp_path / "engine.sock"), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join(5)


def test_a_question_is_answered(server):
    assert socket.call(server.server_address, "GET", socket.KINDS["image"] % "a/b:1") == (200, {"Id": "sha"})
    assert socket.call(server.server_address, "GET", socket.KINDS["volume"] % "x") == (404, {})


def test_what_is_told_arrives(server):
    assert socket.is_good(socket.call(server.server_address, "POST", "/volumes/create", {"Name": "x"}))
    assert server.got == {"Name": "x"}


def test_a_removal_is_done_or_not(server):
    assert socket.remove(server.server_address, "container", "mine")
    assert not socket.remove(server.server_address, "container", "another")


@pytest.mark.parametrize("target", ["/cut", "/nonsense"])
def test_no_answer_and_nonsense_are_left_to_the_program(server, target):
    assert not socket.is_good(socket.call(server.server_address, "GET", target))


def test_a_socket_where_nobody_listens_gives_no_answer(tmp_path):
    assert socket.call(str(tmp_path / "nobody.sock"), "GET", "/info") is None


@pytest.mark.parametrize(
    ("program", "host", "around", "is_asked"),
    [
        ("docker", "unix://{}", ({}, None), True),
        ("/usr/bin/docker", "unix://{}", ({"DOCKER_CONTEXT": "other"}, {"currentContext": "other"}), True),
        ("docker", None, ({"DOCKER_HOST": "unix://{}"}, {"auths": {}}), True),
        ("docker", None, ({"DOCKER_HOST": "unix://{}"}, {"currentContext": "default"}), True),
        ("docker", None, ({"DOCKER_HOST": "unix://{}", "DOCKER_CONTEXT": "other"}, None), False),
        ("docker", None, ({"DOCKER_HOST": "unix://{}"}, {"currentContext": "other"}), False),
        ("docker", "tcp://10.0.0.1:2375", ({}, None), False),
        ("docker", "unix://{}.gone", ({}, None), False),
        ("podman", "unix://{}", ({}, None), False),
    ],
)
def test_only_the_socket_that_the_program_would_ask_is_asked(tmp_path, monkeypatch, *, program, host, around, is_asked):
    environment, config = around
    path = tmp_path / "engine.sock"
    path.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(path))
    if config is not None:
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    found = socket.path_of(program, host and host.format(path))
    assert found == (str(path) if is_asked else None)
