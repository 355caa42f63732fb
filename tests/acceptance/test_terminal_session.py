"""Interactive web terminals: GitLab opens one beside a running job, over the session that came with the job's poll."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import stat
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

BEGUN = 'echo be"gun"; until [ -e {flag} ]; do sleep 0.1; done'


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def session_server(timeout_s=1800, port=None):
    port = port or free_port()
    return (
        f'[session_server]\nlisten_address = "127.0.0.1:{port}"\n'
        f'advertise_address = "localhost:{port}"\nsession_timeout = {timeout_s}\n'
    )


class Screen:
    """What a person sees of a terminal, and types into it."""

    def __init__(self, connection):
        self.connection = connection
        self.text = ""

    def type(self, text):
        if self.connection.subprotocol == "base64.terminal.gitlab.com":
            self.connection.send(base64.b64encode(text.encode()).decode())
        else:
            self.connection.send(text.encode())

    def shows(self, pattern, timeout=30.0):
        until = time.monotonic() + timeout
        while not (found := re.search(pattern, self.text)):
            left = until - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text[-600:]!r}"
            try:
                message = self.connection.recv(timeout=left)
            except TimeoutError:
                continue
            data = base64.b64decode(message) if isinstance(message, str) else message
            self.text += data.decode(errors="replace")
        return found

    def closes(self, timeout=30.0):
        """Why it was closed."""
        until = time.monotonic() + timeout
        while True:
            try:
                self.connection.recv(timeout=max(0.1, until - time.monotonic()))
            except ConnectionClosed as exc:
                return exc.rcvd.reason if exc.rcvd else None


@pytest.fixture
def job(gitlab, make_manager, tmp_path):
    """A running job, its manager, and the file that ends it."""

    def start(**options):
        flag = tmp_path / "flag"
        manager = make_manager()
        manager.write(manager.config.read_text() + "\n" + session_server(**options))
        manager.start()
        job_id = gitlab.enqueue(
            make_job(script=[BEGUN.format(flag=flag)], variables={"GREETING": "hello from the job"})
        )
        gitlab.wait_for_trace(job_id, "begun\n", timeout=60)
        return manager, job_id, flag.touch

    return start


def status_of(gitlab, job_id, **options):
    with pytest.raises(InvalidStatus) as refused:
        gitlab.open_terminal(job_id, **options)
    return refused.value.response.status_code


def test_a_person_types_into_a_running_job(gitlab, job):
    _, job_id, end = job()
    assert gitlab.job(job_id).features["terminal"] is True
    with gitlab.open_terminal(job_id) as connection:
        assert connection.subprotocol == "terminal.gitlab.com"
        screen = Screen(connection)
        screen.type('echo "<$GREETING>" "<$CI_JOB_ID>" "<${PWD##*/}>"\n')
        screen.shows(rf"<hello from the job> <{job_id}> <[a-z]")
        connection.send(json.dumps({"resize": {"rows": 40, "cols": 140}}))
        screen.type("stty size\n")
        screen.shows("40 140")
        assert status_of(gitlab, job_id) == 423
    with gitlab.open_terminal(job_id, subprotocol="base64.terminal.gitlab.com") as connection:
        screen = Screen(connection)
        screen.type("echo a'ga'in\n")
        screen.shows("again")
    end()
    (view,) = gitlab.wait_for(job_id, timeout=30)
    assert view.state == "success"
    assert b"hello from the job" not in gitlab.trace(job_id)


def test_who_knows_less_gets_nothing(gitlab, job):
    _, job_id, end = job()
    session = gitlab.session(job_id)
    assert status_of(gitlab, job_id, authorization="x") == 401
    assert status_of(gitlab, job_id, authorization=session["authorization"].swapcase()) == 401
    assert status_of(gitlab, job_id, authorization="Bearer " + session["authorization"]) == 401
    assert status_of(gitlab, job_id, path="/proxy/web/80/index.html") == 501
    assert status_of(gitlab, job_id, path="/other") == 404
    assert status_of(gitlab, job_id, path="0/exec") == 404
    address = re.match(r"https://([^/]+)", session["url"])[1]
    host, port = address.split(":")
    trust = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", int(port))) as raw, pytest.raises(ssl.SSLCertVerificationError):
        trust.wrap_socket(raw, server_hostname=host)
    end()
    gitlab.wait_for(job_id, timeout=30)
    wait_until(lambda: status_of(gitlab, job_id) == 404, 20, "the end of the session")


def test_the_session_outlives_a_killed_manager_with_its_pinned_certificate(gitlab, job):
    manager, job_id, end = job()
    kept = manager.state / "session.pem"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with gitlab.open_terminal(job_id) as connection:
        screen = Screen(connection)
        screen.type("echo be'fore'\n")
        screen.shows("before")
        manager.kill()
        screen.closes()
    manager.start()
    before = kept.read_bytes()

    def opened():
        try:
            return gitlab.open_terminal(job_id)
        except (OSError, InvalidStatus):
            return None

    with wait_until(opened, 30, "the terminal server") as connection:
        screen = Screen(connection)
        screen.type("echo af'ter'\n")
        screen.shows("after")
    assert kept.read_bytes() == before
    session = gitlab.session(job_id)
    assert session["authorization"] not in manager.log()
    stored = b"".join(path.read_bytes() for path in manager.state.rglob("*") if path.is_file() and path != kept)
    assert session["authorization"].encode() not in stored
    end()
    (view,) = gitlab.wait_for(job_id, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)


def test_a_job_waits_for_an_open_terminal_until_it_is_closed(gitlab, job):
    _, job_id, end = job()
    with gitlab.open_terminal(job_id) as connection:
        screen = Screen(connection)
        screen.type("echo he're'\n")
        screen.shows("here")
        end()
        gitlab.wait_for_trace(job_id, "A terminal is open: the job waits for it, for 30m0s at most", timeout=30)
        screen.type("echo st'ill'\n")
        screen.shows("still")
        assert gitlab.job(job_id).state == "running"
        screen.type("exit\n")
        assert screen.closes() == "the shell has ended"
    (view,) = gitlab.wait_for(job_id, timeout=30)
    assert view.state == "success"


def test_a_job_waits_no_longer_than_session_timeout(gitlab, job):
    _, job_id, end = job(timeout_s=1)
    with gitlab.open_terminal(job_id) as connection:
        screen = Screen(connection)
        screen.type("echo he're'\n")
        screen.shows("here")
        end()
        assert screen.closes() == "the job is over"
    (view,) = gitlab.wait_for(job_id, timeout=30)
    assert view.state == "success"
    assert b"The terminal is closed: its time is over" in gitlab.trace(job_id)


def test_a_terminal_that_comes_too_early_waits_for_its_job(gitlab, make_manager, tmp_path):
    manager = make_manager(pool_keys='instance_ready_command = "sleep 3"')
    manager.write(manager.config.read_text() + "\n" + session_server())
    manager.start()
    job_id = gitlab.enqueue(make_job(script=["sleep 5"]))
    wait_until(lambda: gitlab.session(job_id), 30, "a poll that brings the job")
    with gitlab.open_terminal(job_id) as connection:
        screen = Screen(connection)
        screen.type("echo ea'rly'\n")
        screen.shows("early")
    gitlab.cancel(job_id)
    gitlab.wait_for(job_id, timeout=30)


def test_without_a_server_nothing_is_promised(gitlab, make_manager):
    manager = make_manager()
    manager.write(manager.config.read_text() + "\n[session_server]\nsession_timeout = 1800\n")
    manager.start()
    job_id = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(job_id, timeout=30)
    assert (view.features["session"], view.features["terminal"], gitlab.session(job_id)) == (False, False, None)


def test_an_address_that_is_taken_costs_only_the_terminals(gitlab, make_manager):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        manager = make_manager()
        manager.write(manager.config.read_text() + "\n" + session_server(port=taken.getsockname()[1]))
        manager.start()
        job_id = gitlab.enqueue(make_job(script=["true"]))
        (view,) = gitlab.wait_for(job_id, timeout=30)
    assert (view.state, view.features["terminal"], gitlab.session(job_id)) == ("success", False, None)
    assert manager.events("terminal_server_failed")
