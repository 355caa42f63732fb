"""Every answer of GitLab, row by row, and what we make of it."""

import json
import secrets

import pytest

from fleet.gitlab.outcomes import (
    BrokenOffer,
    Doubt,
    Forbidden,
    Invalid,
    JobOffer,
    NoJob,
    PatchOutcome,
    Refused,
    Unavailable,
    Unregistered,
    UpdateOutcome,
    Verified,
)
from tests.contract.gitlab.scripted_server import answer

TOKEN = secrets.token_hex(12)
JOB = {"id": 7, "token": TOKEN, "steps": [{"name": "script", "script": ["echo"]}]}
HTML = {"body": b"<html><body>Sorry</body></html>", "kind": "text/html; charset=utf-8"}
NOT_NOW = [408, 429, 500, 502, 503, 504, 520]


def ask(gitlab, **more):
    return gitlab.request_job(token=TOKEN, system_id="s_1", info={}, **more)


def put(gitlab, state="success"):
    return gitlab.update_job(job_id=7, token=TOKEN, info={}, state=state)


def patch(gitlab, start=10, data=b"hello"):
    return gitlab.patch_trace(job_id=7, token=TOKEN, start=start, data=data)


def verify(gitlab):
    return gitlab.verify(token=TOKEN, system_id="s_1", info={})


# --- jobs/request ---


def test_request_201_is_a_job(server, gitlab):
    server.script = [answer(201, JOB, X_GitLab_Last_Update="def", X_Request_Id="theirs")]
    found = ask(gitlab, last_update="abc")
    assert isinstance(found, JobOffer)
    assert found.payload.id == 7
    assert json.loads(found.raw) == JOB
    assert (found.last_update, found.request_id, found.retriable_seen) == ("def", "theirs", False)
    assert TOKEN not in repr(found)


def test_request_201_says_its_type_in_any_spelling(server, gitlab):
    server.script = [answer(201, JOB, kind="Application/JSON; charset=utf-8")]
    assert isinstance(ask(gitlab), JobOffer)


def test_request_204_is_no_job(server, gitlab):
    server.script = [answer(204, X_GitLab_Last_Update="def"), answer(204)]
    assert ask(gitlab) == NoJob(last_update="def", retriable_seen=False)
    assert ask(gitlab, last_update="def") == NoJob(last_update="def", retriable_seen=False)


def test_request_403_is_the_runners_fault(server, gitlab):
    server.script = [answer(403, {"message": "403 Forbidden"})]
    found = ask(gitlab)
    assert isinstance(found, Forbidden)
    assert found.reason == "POST jobs/request: GitLab answered 403: 403 Forbidden"


@pytest.mark.parametrize("status", [200, 202, 301, 400, 401, 404, 409, 422, 501])
def test_request_with_any_other_answer_keeps_the_runner_healthy(server, gitlab, status):
    server.script = [answer(status, {"message": "no"})]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert (found.status, found.retriable_seen, len(server.asked)) == (status, False, 1)


@pytest.mark.parametrize("status", NOT_NOW)
def test_request_not_now_is_asked_five_times(server, gitlab, status):
    server.script = [answer(status, **HTML)]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert (found.status, found.retriable_seen, len(server.asked)) == (status, True, 5)
    assert "text/html" in found.reason


def test_request_201_in_html_is_no_answer(server, gitlab):
    server.script = [answer(201, **HTML)]
    found = ask(gitlab)
    assert isinstance(found, Unavailable)
    assert found.status == -1


def test_request_201_with_unreadable_json_is_no_answer(server, gitlab):
    server.script = [answer(201, b"{]", kind="application/json")]
    assert isinstance(ask(gitlab), Unavailable)


def test_request_201_with_a_broken_payload_is_not_forgotten(server, gitlab):
    server.script = [answer(201, {**JOB, "steps": 5}, X_GitLab_Last_Update="def")]
    found = ask(gitlab)
    assert isinstance(found, BrokenOffer)
    assert (found.job_id, found.token, found.last_update) == (7, TOKEN, "def")
    assert found.error.field == "steps"
    assert TOKEN not in repr(found)


def test_request_201_of_a_wrong_type_with_a_job_in_it_is_not_forgotten(server, gitlab):
    server.script = [answer(201, json.dumps(JOB).encode(), kind="text/plain")]
    found = ask(gitlab)
    assert isinstance(found, BrokenOffer)
    assert found.job_id == 7


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_request_201_cut_off_is_not_forgotten(server, gitlab, cut):
    whole = json.dumps(JOB).encode()
    server.script = [answer(201, whole[:-cut], kind="application/json", length=len(whole), Connection="close")]
    found = ask(gitlab)
    assert isinstance(found, BrokenOffer)
    assert (found.job_id, found.token) == (7, TOKEN)


def test_request_with_ten_megabytes_of_variables(server, gitlab):
    variables = [{"key": f"V{n}", "value": "x" * 1000} for n in range(10_000)]
    server.script = [answer(201, {**JOB, "variables": variables})]
    assert len(ask(gitlab).payload.variables) == 10_000


# --- PATCH trace ---


def test_patch_202_advances(server, gitlab):
    server.script = [answer(202, Job_Status="running", Range="0-15")]
    found = patch(gitlab)
    assert (found.outcome, found.offset, found.job_status) == (PatchOutcome.ADVANCED, 15, "running")
    assert not found.cancel_requested


@pytest.mark.parametrize(
    ("given", "offset"),
    [("0-3", 3), ("0-99", 99), ("0-0", 0), ("", 0), ("bytes 0-3", 0), ("0--3", 0), ("0-x", 0), (None, 0)],
)
def test_patch_416_goes_on_where_the_server_is(server, gitlab, given, offset):
    server.script = [answer(416, **({} if given is None else {"Range": given}))]
    found = patch(gitlab)
    assert (found.outcome, found.offset) == (PatchOutcome.REOFFSET, offset)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (403, PatchOutcome.ABORT),
        (404, PatchOutcome.NOT_FOUND),
        (200, PatchOutcome.FAILED),
        (301, PatchOutcome.FAILED),
        (400, PatchOutcome.FAILED),
        (401, PatchOutcome.FAILED),
        (409, PatchOutcome.FAILED),
        (412, PatchOutcome.FAILED),
    ],
)
def test_patch_with_any_other_answer(server, gitlab, status, outcome):
    server.script = [answer(status, {"message": "no"})]
    found = patch(gitlab)
    assert (found.outcome, found.offset, len(server.asked)) == (outcome, None, 1)
    assert found.reason == f"PATCH jobs/{{id}}/trace: GitLab answered {status}: no"


@pytest.mark.parametrize("status", NOT_NOW)
def test_patch_not_now_is_sent_five_times_and_has_failed(server, gitlab, status):
    server.script = [answer(status, **HTML)]
    assert patch(gitlab).outcome is PatchOutcome.FAILED
    assert [asked.body for asked in server.asked] == [b"hello"] * 5


# --- PUT ---


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, UpdateOutcome.DONE),
        (202, UpdateOutcome.ACCEPTED),
        (412, UpdateOutcome.RESEND),
        (403, UpdateOutcome.ABORT),
        (404, UpdateOutcome.GONE),
        (204, UpdateOutcome.FAILED),
        (302, UpdateOutcome.FAILED),
        (400, UpdateOutcome.FAILED),
        (401, UpdateOutcome.FAILED),
        (409, UpdateOutcome.FAILED),
        (416, UpdateOutcome.FAILED),
    ],
)
def test_put(server, gitlab, status, outcome):
    server.script = [answer(status)]
    found = put(gitlab)
    assert (found.outcome, found.status, len(server.asked)) == (outcome, status, 1)


@pytest.mark.parametrize("status", NOT_NOW)
def test_put_not_now_is_sent_five_times_and_has_failed(server, gitlab, status):
    server.script = [answer(status, **HTML)]
    found = put(gitlab)
    assert (found.outcome, len(server.asked)) == (UpdateOutcome.FAILED, 5)


# --- headers of PATCH and PUT ---


@pytest.mark.parametrize("job_status", ["canceled", "failed"])
@pytest.mark.parametrize("status", [200, 202, 403, 404, 412, 416])
def test_a_job_taken_away_beats_the_status(server, gitlab, status, job_status):
    server.script = [answer(status, Job_Status=job_status)]
    assert patch(gitlab).outcome is PatchOutcome.ABORT
    assert put(gitlab).outcome is UpdateOutcome.ABORT


@pytest.mark.parametrize(
    ("status", "patched", "updated"),
    [
        (202, PatchOutcome.ADVANCED, UpdateOutcome.ACCEPTED),
        (200, PatchOutcome.FAILED, UpdateOutcome.DONE),
        (416, PatchOutcome.REOFFSET, UpdateOutcome.FAILED),
    ],
)
def test_canceling_comes_beside_the_status(server, gitlab, status, patched, updated):
    server.script = [answer(status, Job_Status="canceling")]
    first, second = patch(gitlab), put(gitlab)
    assert (first.outcome, first.cancel_requested) == (patched, True)
    assert (second.outcome, second.cancel_requested) == (updated, True)


def test_a_job_taken_away_is_noticed_even_if_the_answer_breaks_off(server, gitlab):
    server.script = [answer(202, b"20", length=50, Job_Status="canceled", Connection="close")]
    assert patch(gitlab).outcome is PatchOutcome.ABORT


def test_a_body_that_breaks_off_does_not_undo_what_the_headers_said(server, gitlab):
    server.script = [answer(202, b"20", length=50, Connection="close")]
    assert patch(gitlab).outcome is PatchOutcome.ADVANCED


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("3", 3),
        ("60", 60),
        ("900", 900),
        ("86400", 900),
        ("0", None),
        ("-3", None),
        ("", None),
        ("x", None),
        ("1.5", None),
    ],
)
def test_the_update_interval_is_believed_within_bounds(server, gitlab, given, seconds):
    server.script = [answer(202, X_GitLab_Trace_Update_Interval=given)]
    assert patch(gitlab).update_interval_s == seconds
    assert put(gitlab).update_interval_s == seconds


# --- the registration family ---


def test_verify_403_is_the_only_no(server, gitlab):
    server.script = [answer(403, {"message": "403 Forbidden"})]
    assert isinstance(verify(gitlab), Refused)


@pytest.mark.parametrize("status", [201, 301, 400, 401, 404, 422, 429, 500])
def test_verify_with_any_other_answer_is_doubt(server, gitlab, status):
    server.script = [answer(status, **HTML)]
    found = verify(gitlab)
    assert isinstance(found, Doubt)
    assert found.status == status


def test_verify_of_an_old_server_says_it_in_plain_text(server, gitlab):
    server.script = [answer(200, b"200", kind="text/plain")]
    assert verify(gitlab) == Verified()


@pytest.mark.parametrize("reply", [answer(200, **HTML), answer(200, b"{", kind="application/json"), answer(200)])
def test_verify_with_a_200_of_somebody_else_is_doubt(server, gitlab, reply):
    server.script = [reply]
    assert isinstance(verify(gitlab), Doubt)


def test_register_says_what_was_wrong_with_the_wish(server, gitlab):
    body = {"message": {"maximum_timeout": ["needs to be at least 10 minutes"], "tags": ["a", "b"]}}
    server.script = [answer(400, body)]
    found = gitlab.register(token=TOKEN, info={})
    assert isinstance(found, Invalid)
    assert "maximum_timeout needs to be at least 10 minutes; tags a, b" in found.reason


def test_register_403_is_a_bad_token(server, gitlab):
    server.script = [answer(403, {"message": "invalid token supplied"})]
    assert isinstance(gitlab.register(token=TOKEN, info={}), Refused)


@pytest.mark.parametrize("body", [{}, {"id": 1}, {"token": "t"}, {"id": "x", "token": "t"}, {"id": 1, "token": None}])
def test_register_without_id_or_token_is_doubt(server, gitlab, body):
    server.script = [answer(201, body)]
    assert isinstance(gitlab.register(token=TOKEN, info={}), Doubt)


def test_unregister_of_what_is_gone_is_success(server, gitlab):
    server.script = [answer(404)]
    assert gitlab.unregister(token=TOKEN) == Unregistered()


@pytest.mark.parametrize(("status", "kind"), [(403, Refused), (500, Doubt), (200, Doubt)])
def test_unregister_otherwise(server, gitlab, status, kind):
    server.script = [answer(status)]
    assert isinstance(gitlab.unregister(token=TOKEN), kind)
    assert isinstance(gitlab.unregister_manager(token=TOKEN, system_id="s_1"), kind)


@pytest.mark.parametrize(("status", "kind"), [(403, Refused), (404, Doubt), (503, Doubt)])
def test_reset_token_otherwise(server, gitlab, status, kind):
    server.script = [answer(status)]
    assert isinstance(gitlab.reset_token(token=TOKEN), kind)
    assert isinstance(gitlab.reset_token_by_pat(runner_id=1, pat="p"), kind)


# --- reasons ---


def test_a_reason_names_where_a_redirection_leads(server, gitlab):
    server.script = [answer(301, Location="https://new.example/api/v4/jobs/request?x=1")]
    assert "https://new.example/api/v4/jobs/request: set url" in ask(gitlab).reason


def test_a_reason_never_repeats_the_token(server, gitlab):
    server.script = [answer(400, {"message": f"bad token {TOKEN}"})]
    assert ask(gitlab).reason.endswith("bad token [MASKED]")
    assert TOKEN not in put(gitlab).reason


def test_a_reason_is_one_short_line(server, gitlab):
    server.script = [answer(400, {"message": "a\n b" * 1000})]
    reason = ask(gitlab).reason
    assert "\n" not in reason
    assert len(reason) < 400


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"message": 5}', b'{"message": null}', b"[" * 100_000])
def test_an_odd_error_body_is_no_error_of_ours(server, gitlab, body):
    server.script = [answer(400, body, kind="application/json")]
    assert "answered 400" in ask(gitlab).reason
