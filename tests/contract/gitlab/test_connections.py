"""What networks do: connections break, answers are lost, servers fall silent, proxies stand between."""

import logging
import secrets
import socket
import threading
import time

import pytest
import structlog

from fleet.gitlab import lines
from fleet.gitlab.outcomes import NoJob, PatchOutcome, Unavailable, UpdateOutcome
from fleet.gitlab.wire import Timeouts
from tests.contract.gitlab.scripted_server import answer, reset, until

TOKEN = secrets.token_hex(12)


def ask(gitlab, **more):
    return gitlab.request_job(token=TOKEN, system_id="s_1", info={}, **more)


def patch(gitlab, start=0, data=b"x"):
    return gitlab.patch_trace(job_id=7, token=TOKEN, start=start, data=data)


def put(gitlab):
    return gitlab.update_job(job_id=7, token=TOKEN, info={}, state="success")


def test_a_reset_in_the_middle_of_a_patch_has_failed_and_the_next_resumes(server, gitlab):
    def greet(sock):
        sock.recv(1000)
        reset(sock)

    server.greet = greet
    assert patch(gitlab, data=b"x" * (1 << 20)).outcome is PatchOutcome.FAILED
    server.greet = None
    server.script = [answer(416, Range="0-500"), answer(202)]
    found = patch(gitlab, data=b"x" * (1 << 20))
    assert (found.outcome, found.offset) == (PatchOutcome.REOFFSET, 500)
    assert patch(gitlab, start=500).outcome is PatchOutcome.ADVANCED


def test_an_answer_lost_after_the_work_was_done_has_failed(server, gitlab):
    server.script = [lambda sock, asked: reset(sock), answer(200)]
    found = put(gitlab)
    assert (found.outcome, found.status, len(server.asked)) == (UpdateOutcome.FAILED, -1, 1)
    assert put(gitlab).outcome is UpdateOutcome.DONE


def test_a_server_that_answers_before_it_has_read_all_is_heard(server, gitlab):
    def greet(sock):
        sock.recv(1000)
        sock.sendall(answer(413, {"message": "too large"}, Connection="close"))
        while sock.recv(1 << 20):
            pass

    server.greet = greet
    found = patch(gitlab, data=b"x" * (1 << 22))
    assert (found.outcome, found.status) == (PatchOutcome.FAILED, 413)


@pytest.mark.parametrize(
    "garbage", [b"", b"HTTP/1.1", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"\0" * 200_000]
)
def test_what_is_no_http_is_no_answer(server, gitlab, garbage):
    def step(sock, asked):
        sock.sendall(garbage)

    server.script = [step]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert found.status == -1
    assert found.reason.startswith("POST jobs/request: ")


def test_silence_ends_with_the_read_time(server, client_of):
    silent = threading.Event()
    server.script = [lambda sock, asked: silent.wait(20) and None]
    try:
        started = time.monotonic()
        found = patch(client_of(server.url, timeouts=Timeouts(read_s=0.2)))
        assert 0.2 <= time.monotonic() - started < 2
    finally:
        silent.set()
    assert found.outcome is PatchOutcome.FAILED
    assert "did not answer in time" in found.reason


def test_an_answer_that_trickles_ends_with_the_whole_time(server, client_of):
    ended = threading.Event()

    def step(sock, asked):
        sock.sendall(answer(201, b"", length=1000, kind="application/json"))
        while not ended.wait(0.05):
            sock.sendall(b" ")

    server.script = [step]
    try:
        found = ask(client_of(server.url, timeouts=Timeouts(read_s=5, poll_s=5, whole_s=0.5)))
    finally:
        ended.set()
    assert isinstance(found, Unavailable)


def test_an_endless_answer_is_cut_off(server, gitlab, monkeypatch):
    def step(sock, asked):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            sock.sendall(b"x" * 100_000)

    server.script = [step]
    found = gitlab.verify(token=TOKEN, system_id="s_1", info={})
    assert "larger than 1 MiB" in found.reason


def test_nobody_there_is_said_with_address_and_cause(client_of):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    found = ask(client_of(f"http://127.0.0.1:{port}"))
    assert isinstance(found, Unavailable)
    assert found.reason == f"POST jobs/request: cannot connect to 127.0.0.1:{port}: Connection refused"


def test_a_name_that_does_not_exist_is_said(client_of):
    found = ask(client_of("http://gitlab.invalid"))
    assert isinstance(found, Unavailable)
    assert "the name gitlab.invalid cannot be looked up" in found.reason


def test_connecting_ends_with_the_connect_time(client_of):
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    try:
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        client = client_of(f"http://127.0.0.1:{full.getsockname()[1]}", timeouts=Timeouts(connect_s=0.2))
        started = time.monotonic()
        found = ask(client)
        assert 0.2 <= time.monotonic() - started < 2
    finally:
        for each in (full, *waiting):
            each.close()
    assert "did not answer in time" in found.reason


def test_one_connection_serves_one_call_after_the_other(server, gitlab):
    for _ in range(20):
        assert ask(gitlab) == NoJob(last_update=None, retriable_seen=False)
    assert server.accepted == 1


def test_a_connection_that_the_server_closed_is_replaced(server, gitlab):
    server.script = [answer(204, Connection="close"), answer(204)]
    ask(gitlab)
    ask(gitlab)
    for sock in list(server.open):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    until(lambda: not server.open)
    assert isinstance(ask(gitlab), NoJob)
    assert server.accepted == 3


def test_an_old_connection_is_not_used_again(server, client_of):
    gitlab = client_of(server.url, connection_max_age_s=0.0)
    for _ in range(3):
        ask(gitlab)
    assert server.accepted == 3
    until(lambda: not server.open or len(server.open) == 1)


def test_idle_connections_are_bounded_in_number_and_time(server, gitlab, monkeypatch):
    monkeypatch.setattr(lines, "IDLE_LINES", 2)
    gate = threading.Barrier(6)

    def step(sock, asked):
        gate.wait(10)
        return answer(204)

    server.script = [step]
    threads = [threading.Thread(target=ask, args=(gitlab,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.accepted == 6
    until(lambda: len(server.open) == 2)
    server.script = [answer(204)]
    monkeypatch.setattr(lines, "IDLE_S", -1.0)
    ask(gitlab)
    until(lambda: not server.open)


def test_threads_share_one_client(server, gitlab):
    server.script = [answer(202)]
    outcomes = []

    def work(number):
        outcomes.extend(patch(gitlab, start=number * 100 + each).outcome for each in range(50))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [PatchOutcome.ADVANCED] * 400
    assert len({asked.headers["content-range"] for asked in server.asked}) == 400
    assert server.accepted <= 8


def test_a_closed_client_keeps_no_connection(server, gitlab):
    ask(gitlab)
    gitlab.close()
    until(lambda: not server.open)
    ask(gitlab)
    until(lambda: not server.open)


def test_an_http_proxy_of_the_environment_is_used(server, client_of):
    environment = {"http_proxy": f"http://me:secret@127.0.0.1:{server.port}"}
    gitlab = client_of("http://gitlab.example.test/sub", environment=environment)
    assert isinstance(ask(gitlab), NoJob)
    (asked,) = server.asked
    assert asked.target == "http://gitlab.example.test/sub/api/v4/jobs/request"
    assert asked.headers["host"] == "gitlab.example.test"
    assert asked.headers["proxy-authorization"].startswith("Basic ")


def test_a_proxy_that_refuses_the_way_is_said(server, client_of):
    server.script = [answer(407, b"no")]
    gitlab = client_of("https://gitlab.example.test", environment={"https_proxy": f"http://127.0.0.1:{server.port}"})
    found = ask(gitlab)
    assert server.asked[0].method == "CONNECT"
    assert isinstance(found, Unavailable)
    assert "407" in found.reason


def test_nothing_secret_is_logged(server, gitlab, caplog):
    caplog.set_level(logging.DEBUG)
    server.script = [answer(503, {"message": TOKEN}), answer(403, {"message": TOKEN})]
    with structlog.testing.capture_logs() as logged:
        ask(gitlab)
        patch(gitlab, data=b"the trace of the job")
        put(gitlab)
    assert {entry["event"] for entry in logged} == {"gitlab_asked_again", "gitlab_did_not_agree"}
    said = str(logged) + caplog.text
    assert TOKEN not in said
    assert "the trace of the job" not in said
