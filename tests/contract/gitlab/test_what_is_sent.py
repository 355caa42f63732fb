"""Method, path, headers and body of every call, as GitLab reads them."""

import secrets
import uuid

import pytest

from fleet.gitlab.outcomes import Registered, TokenReset, Unregistered, Verified
from tests.contract.gitlab.scripted_server import answer

TOKEN = secrets.token_hex(12)
INFO = {"name": "n", "features": {"refspecs": True}}
JSON = "application/json"


def the_only(server):
    (asked,) = server.asked
    return asked


def check_head(asked, method, path):
    assert (asked.method, asked.target) == (method, f"/api/v4/{path}")
    assert asked.headers["user-agent"] == "fleet 1.0 (test; linux/amd64)"
    assert asked.headers["host"].startswith("localhost:")
    assert uuid.UUID(hex=asked.headers["x-request-id"]).hex == asked.headers["x-request-id"]


def test_verify(server, gitlab):
    server.script = [answer(200, {"id": 9, "token": TOKEN, "token_expires_at": "2026-02-01T00:00:00.000Z"})]
    found = gitlab.verify(token=TOKEN, system_id="s_1", info=INFO)
    assert isinstance(found, Verified)
    assert (found.runner_id, found.token_expires_at.isoformat()) == (9, "2026-02-01T00:00:00+00:00")
    asked = the_only(server)
    check_head(asked, "POST", "runners/verify")
    assert (asked.headers["runner-token"], asked.headers["content-type"], asked.headers["accept"]) == (
        TOKEN,
        JSON,
        JSON,
    )
    assert asked.json == {"info": INFO, "token": TOKEN, "system_id": "s_1"}


def test_register(server, gitlab):
    server.script = [answer(201, {"id": 9, "token": "new", "token_expires_at": None})]
    settings = {"description": "d", "tag_list": "a,b", "run_untagged": False}
    found = gitlab.register(token=TOKEN, info=INFO, settings=settings)
    assert found == Registered(runner_id=9, token="new")
    asked = the_only(server)
    check_head(asked, "POST", "runners")
    assert asked.json == {**settings, "info": INFO, "token": TOKEN}


def test_unregister(server, gitlab):
    assert gitlab.unregister(token=TOKEN) == Unregistered()
    asked = the_only(server)
    check_head(asked, "DELETE", "runners")
    assert asked.json == {"token": TOKEN}
    assert asked.headers["runner-token"] == TOKEN
    assert "accept" not in asked.headers


def test_unregister_manager(server, gitlab):
    assert gitlab.unregister_manager(token=TOKEN, system_id="s_1") == Unregistered()
    asked = the_only(server)
    check_head(asked, "DELETE", "runners/managers")
    assert asked.json == {"token": TOKEN, "system_id": "s_1"}


def test_reset_token(server, gitlab):
    server.script = [answer(201, {"token": "new", "token_expires_at": "2026-02-01T00:00:00Z"})]
    found = gitlab.reset_token(token=TOKEN)
    assert isinstance(found, TokenReset)
    assert found.token == "new"
    asked = the_only(server)
    check_head(asked, "POST", "runners/reset_authentication_token")
    assert asked.json == {"token": TOKEN}
    assert asked.headers["runner-token"] == TOKEN


def test_reset_token_by_pat(server, gitlab):
    server.script = [answer(201, {"token": "new"})]
    assert gitlab.reset_token_by_pat(runner_id=9, pat="pat") == TokenReset(token="new")
    asked = the_only(server)
    check_head(asked, "POST", "runners/9/reset_authentication_token")
    assert asked.headers["private-token"] == "pat"
    assert "runner-token" not in asked.headers
    assert asked.body == b""


def test_request_job(server, gitlab):
    session = {"url": "u", "certificate": "c", "authorization": "a"}
    gitlab.request_job(token=TOKEN, system_id="s_1", info=INFO)
    gitlab.request_job(token=TOKEN, system_id="s_1", info=INFO, last_update="abc", session=session)
    first, second = server.asked
    check_head(first, "POST", "jobs/request")
    assert first.headers["runner-token"] == TOKEN
    assert first.json == {"info": INFO, "token": TOKEN, "system_id": "s_1"}
    assert second.json == {**first.json, "last_update": "abc", "session": session}
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize(
    ("more", "body"),
    [
        ({"state": "running"}, {"state": "running", "output": {}}),
        (
            {"state": "running", "crc32": 0x1A, "bytesize": 0},
            {"state": "running", "checksum": "crc32:0000001a", "output": {"checksum": "crc32:0000001a", "bytesize": 0}},
        ),
        (
            {"state": "failed", "failure_reason": "script_failure", "exit_code": 3},
            {"state": "failed", "failure_reason": "script_failure", "exit_code": 3, "output": {}},
        ),
        ({"state": "success", "exit_code": 0}, {"state": "success", "output": {}}),
    ],
)
def test_update_job(server, gitlab, more, body):
    server.script = [answer(200, b"200", kind=JSON)]
    gitlab.update_job(job_id=7, token=TOKEN, info=INFO, **more)
    asked = the_only(server)
    check_head(asked, "PUT", "jobs/7")
    assert asked.headers["job-token"] == TOKEN
    assert asked.headers["content-type"] == JSON
    assert asked.json == {"info": INFO, "token": TOKEN, **body}


def test_patch_trace(server, gitlab):
    server.script = [answer(202)]
    gitlab.patch_trace(job_id=7, token=TOKEN, start=10, data=b"hello", debug_trace=True)
    gitlab.patch_trace(job_id=7, token=TOKEN, start=15, data=b"\xff" * (1 << 20))
    first, second = server.asked
    check_head(first, "PATCH", "jobs/7/trace?debug_trace=true")
    assert first.headers["job-token"] == TOKEN
    assert first.headers["content-type"] == "text/plain"
    assert first.headers["content-range"] == "10-14"
    assert first.body == b"hello"
    assert second.target.endswith("?debug_trace=false")
    assert second.headers["content-range"] == f"15-{15 + (1 << 20) - 1}"
    assert second.body == b"\xff" * (1 << 20)


def test_an_empty_piece_of_trace_is_never_sent(server, gitlab):
    with pytest.raises(ValueError, match="empty"):
        gitlab.patch_trace(job_id=7, token=TOKEN, start=0, data=b"")
    assert server.asked == []


def test_a_server_below_a_path_keeps_it(server, client_of):
    client_of(server.url + "/gitlab/").unregister(token=TOKEN)
    assert the_only(server).target == "/gitlab/api/v4/runners"


def test_a_token_with_a_line_break_makes_no_header_of_its_own(server, gitlab):
    gitlab.unregister(token=f"{TOKEN}\r\nX-Evil: 1\n")
    assert the_only(server).headers["runner-token"] == f"{TOKEN}X-Evil:1"
    assert "x-evil" not in the_only(server).headers
