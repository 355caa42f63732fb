"""A held poll ends when we want it to, and a job that was under way is not lost."""

import contextlib
import json
import secrets
import socket
import threading
import time

import pytest

from fleet.gitlab import sockets
from fleet.gitlab.cancel import Cancel
from fleet.gitlab.outcomes import JobOffer, NoJob, PatchOutcome, Withdrawn
from fleet.gitlab.wire import Timeouts
from tests.contract.gitlab.scripted_server import answer, until

TOKEN = secrets.token_hex(12)
JOB = answer(201, {"id": 7, "token": TOKEN, "variables": [{"key": "A", "value": "x" * 100_000}]})


class Poll:
    """A poll in a thread, with its stop sign."""

    def __init__(self, gitlab, cancel):
        self.cancel = cancel
        self.result = None
        self._thread = threading.Thread(target=self._run, args=(gitlab,))
        self._thread.start()

    def _run(self, gitlab):
        self.result = gitlab.request_job(token=TOKEN, system_id="s_1", info={}, cancel=self.cancel)

    def end(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.result

    def stop(self):
        started = time.monotonic()
        self.cancel.set()
        result = self.end()
        return result, time.monotonic() - started


@pytest.fixture
def cancel():
    with Cancel() as cancel:
        yield cancel


@pytest.fixture
def hold():
    """An answer that waits until the test releases it, and says so when the client has left."""

    class Hold:
        def __init__(self):
            self.reached, self.release, self.left = threading.Event(), threading.Event(), threading.Event()
            self.reply = None

        def __call__(self, sock, asked):
            self.reached.set()
            self.release.wait(20)
            return self.reply

    hold = Hold()
    yield hold
    hold.release.set()


def until_the_client_leaves(sock, asked):
    """What Workhorse does: hold the poll until the client closes its half."""
    sock.settimeout(20)
    assert sock.recv(1) == b""
    sock.settimeout(None)


def test_a_held_poll_ends_at_once(server, gitlab, cancel, hold):
    server.script = [hold]
    poll = Poll(gitlab, cancel)
    assert hold.reached.wait(10)
    result, seconds = poll.stop()
    assert result == Withdrawn()
    assert seconds < 0.5


def test_many_held_polls_end_at_once_on_one_sign(server, gitlab, cancel, hold):
    server.script = [hold]
    polls = [Poll(gitlab, cancel) for _ in range(20)]
    until(lambda: len(server.asked) == 20)
    started = time.monotonic()
    cancel.set()
    assert [poll.end() for poll in polls] == [Withdrawn()] * 20
    assert time.monotonic() - started < 1.0


def test_the_server_sees_that_we_leave(server, gitlab, cancel):
    left = threading.Event()

    def step(sock, asked):
        until_the_client_leaves(sock, asked)
        left.set()

    server.script = [step]
    poll = Poll(gitlab, cancel)
    until(lambda: server.asked)
    result, seconds = poll.stop()
    assert result == Withdrawn()
    assert seconds < 2
    assert left.wait(5)


def test_a_job_assigned_in_the_race_comes_back(server, gitlab, cancel):
    def step(sock, asked):
        until_the_client_leaves(sock, asked)
        return JOB  # assigned before the server saw us leave

    server.script = [step]
    poll = Poll(gitlab, cancel)
    until(lambda: server.asked)
    result, _ = poll.stop()
    assert isinstance(result, JobOffer)
    assert result.payload.id == 7


def test_a_job_that_is_just_being_assigned_is_waited_for(server, gitlab, cancel, monkeypatch):
    monkeypatch.setattr(sockets, "LISTEN_S", 2.0)

    def drop_if_the_client_has_left(sock, asked):  # as proxies do
        cancel.wait(20)
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            return sock.recv(1) or None
        sock.settimeout(None)
        return JOB

    server.script = [drop_if_the_client_has_left]
    poll = Poll(gitlab, cancel)
    until(lambda: server.asked)
    assert isinstance(poll.stop()[0], JobOffer)


def test_a_connection_that_we_left_is_not_used_again(server, gitlab, cancel):
    done = threading.Event()

    def step(sock, asked):
        until_the_client_leaves(sock, asked)
        sock.sendall(answer(204))
        done.wait(20)

    server.script = [step, answer(204)]
    poll = Poll(gitlab, cancel)
    until(lambda: server.asked)
    try:
        assert isinstance(poll.stop()[0], NoJob)
        assert isinstance(gitlab.request_job(token=TOKEN, system_id="s_1", info={}), NoJob)
        assert server.accepted == 2
    finally:
        done.set()


def test_we_do_not_leave_while_an_answer_comes(server, gitlab, cancel):
    """A proxy in between would drop the rest."""
    gone = []

    def step(sock, asked):
        sock.sendall(JOB[:300])
        cancel.set()
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            gone.append(sock.recv(1))
        sock.settimeout(None)
        return JOB[300:]

    server.script = [step]
    assert isinstance(Poll(gitlab, cancel).end(), JobOffer)
    assert gone == []


def test_a_job_whose_first_bytes_have_come_is_waited_for(server, gitlab, cancel):
    begun, go_on = threading.Event(), threading.Event()

    def step(sock, asked):
        sock.sendall(JOB[:300])
        begun.set()
        go_on.wait(10)
        return JOB[300:]

    server.script = [step]
    poll = Poll(gitlab, cancel)
    assert begun.wait(10)
    cancel.set()
    threading.Timer(0.5, go_on.set).start()  # longer than an answer without a first byte is given
    result = poll.end()
    assert isinstance(result, JobOffer)
    assert json.loads(result.raw)["id"] == 7


def test_a_204_in_the_race_is_no_job(server, gitlab, cancel):
    def step(sock, asked):
        until_the_client_leaves(sock, asked)
        return answer(204, X_GitLab_Last_Update="def")

    server.script = [step]
    poll = Poll(gitlab, cancel)
    until(lambda: server.asked)
    assert poll.stop()[0] == NoJob(last_update="def", retriable_seen=False)


def test_a_sign_set_before_asks_for_nothing(server, gitlab, cancel):
    cancel.set()
    assert Poll(gitlab, cancel).end() == Withdrawn()
    assert server.accepted == 0


def test_connecting_ends_at_once(client_of, cancel):
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    try:
        for each in waiting:  # fill the queue of connections, so that ours hangs
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        poll = Poll(client_of(f"http://127.0.0.1:{full.getsockname()[1]}"), cancel)
        poll._thread.join(0.3)
        assert poll.result is None
        result, seconds = poll.stop()
    finally:
        for each in (full, *waiting):
            each.close()
    assert result == Withdrawn()
    assert seconds < 2


def test_a_tls_greeting_that_never_comes_ends_at_once(server, client_of, cancel):
    silent = threading.Event()
    server.greet = lambda sock: silent.wait(20)
    try:
        poll = Poll(client_of(server.url.replace("http:", "https:")), cancel)
        until(lambda: server.accepted)
        result, seconds = poll.stop()
    finally:
        silent.set()
    assert result == Withdrawn()
    assert seconds < 2


def test_other_calls_go_on_while_a_poll_is_held_and_ended(server, gitlab, cancel, hold):
    server.script = [hold, answer(202)]
    poll = Poll(gitlab, cancel)
    assert hold.reached.wait(10)
    for number in range(5):
        assert gitlab.patch_trace(job_id=7, token=TOKEN, start=number, data=b"x").outcome is PatchOutcome.ADVANCED
    poll.stop()
    assert gitlab.patch_trace(job_id=7, token=TOKEN, start=5, data=b"x").outcome is PatchOutcome.ADVANCED
    assert server.accepted == 2  # one for the poll, one for all the others


def test_a_poll_waits_longer_than_an_update(server, client_of, cancel, hold):
    gitlab = client_of(server.url, timeouts=Timeouts(read_s=0.2, poll_s=20))
    server.script = [hold]
    hold.reply = JOB
    poll = Poll(gitlab, cancel)
    assert hold.reached.wait(10)
    threading.Timer(0.6, hold.release.set).start()
    assert isinstance(poll.end(), JobOffer)


def test_a_poll_gives_up_on_a_server_that_is_dead(server, client_of, cancel, hold):
    server.script = [hold]
    poll = Poll(client_of(server.url, timeouts=Timeouts(poll_s=0.2)), cancel)
    assert poll.end().reason == "POST jobs/request: it did not answer in time"
