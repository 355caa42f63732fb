from __future__ import annotations

import httpx
import pytest
import trustme

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.payload import make_job
from tests.contract.pretend_gitlab.raw_runner import INFO, RawRunner


def test_a_runner_made_in_the_user_interface_has_a_glrt_token_and_verifies(gitlab, runner):
    answer = runner.call("POST", "runners/verify", info=INFO, token=runner.token, system_id=runner.system_id)
    assert answer.status_code == 200
    assert answer.json() == {"id": 1, "token": runner.token, "token_expires_at": None}
    assert runner.token.startswith("glrt-")
    assert runner.system_id in gitlab.runners()[0]["managers"]
    assert gitlab.violations() == []


def test_a_legacy_runner_registers_by_the_registration_token_and_unregisters(gitlab, runner):
    answer = runner.call(
        "POST", "runners", info=INFO, token=gitlab.registration_token, description="old", tag_list="a,b"
    )
    assert answer.status_code == 201
    token = answer.json()["token"]
    assert not token.startswith("glrt-")
    assert runner.call("DELETE", "runners", token=token).status_code == 204
    assert runner.call("DELETE", "runners", token=token).status_code == 403
    assert gitlab.violations() == []


def test_a_wrong_registration_token_is_forbidden(gitlab, runner):
    assert runner.call("POST", "runners", info=INFO, token="nonsense").status_code == 403


def test_a_manager_of_a_glrt_runner_unregisters_itself_alone(gitlab, runner):
    runner.poll()
    gone = runner.call("DELETE", "runners/managers", token=runner.token, system_id=runner.system_id)
    assert gone.status_code == 204
    assert gitlab.runners()[0]["managers"] == {}
    again = runner.call("DELETE", "runners/managers", token=runner.token, system_id=runner.system_id)
    assert again.status_code == 404
    assert gitlab.violations() == []


def test_deleting_a_glrt_runner_is_a_breach(gitlab, runner):
    assert runner.call("DELETE", "runners", token=runner.token).status_code == 403
    assert gitlab.violations()[0].startswith("wrong_unregister")


def test_a_reset_token_replaces_the_old_one_at_once_and_has_a_new_life(gitlab):
    made = gitlab.create_runner(lifetime_s=3600)
    runner = RawRunner(gitlab.url, made["token"])
    answer = runner.call("POST", "runners/reset_authentication_token", token=made["token"])
    assert answer.status_code == 201
    assert set(answer.json()) == {"token", "token_expires_at"}
    assert answer.json()["token_expires_at"] is not None
    assert runner.poll().status_code == 403
    assert runner.poll(token=answer.json()["token"]).status_code == 204
    assert gitlab.violations() == []
    runner.close()


def test_a_person_resets_a_token_with_an_access_token(gitlab, runner):
    path = f"{gitlab.url}/api/v4/runners/1/reset_authentication_token"
    accepted = {"Accept": "application/json"}
    assert httpx.post(path, headers=accepted | {"PRIVATE-TOKEN": "wrong"}).status_code == 401
    answer = httpx.post(path, headers=accepted | {"PRIVATE-TOKEN": gitlab.private_token})
    assert answer.status_code == 201
    assert answer.json()["token"] != runner.token
    assert gitlab.violations() == []


@pytest.mark.parametrize("change", [{"revoked": True}, {"expires_at": 1.0}])
def test_a_revoked_or_expired_token_is_forbidden(gitlab: PretendGitLab, runner: RawRunner, change):
    gitlab.set_runner(1, **change)
    assert runner.poll().status_code == 403
    verify = runner.call("POST", "runners/verify", info=INFO, token=runner.token, system_id=runner.system_id)
    assert verify.status_code == 403


def test_a_paused_runner_gets_nothing_though_jobs_wait(gitlab, runner):
    gitlab.enqueue({"variables": []})
    gitlab.set_runner(1, paused=True)
    assert runner.poll().status_code == 204
    gitlab.set_runner(1, paused=False)
    assert runner.poll().status_code == 201


@pytest.mark.parametrize(
    ("fields", "slug"),
    [
        ({"system_id": "s_short"}, "bad_system_id"),
        ({"system_id": "x_abcdefabcdef"}, "bad_system_id"),
        ({"info": {**INFO, "features": {}}}, "bad_info"),
        ({"info": {key: INFO[key] for key in INFO if key != "executor"}}, "bad_info"),
        ({"info": {**INFO, "features": {"cancelable": "yes"}}}, "bad_info"),
        ({"info": {**INFO, "labels": {"a": "too short a key"}}}, "bad_info"),
        ({"info": None}, "bad_info"),
        ({"headers": {"RUNNER-TOKEN": "other"}}, "bad_header"),
        ({"headers": {"Accept": "*/*"}}, "bad_header"),
        ({"headers": {"Content-Type": "text/json"}}, "bad_header"),
    ],
)
def test_a_job_request_of_the_wrong_form_is_a_breach(gitlab, runner, fields, slug):
    runner.poll(**fields)
    assert [line.split(":")[0] for line in gitlab.violations()] == [slug]


def test_an_unknown_path_is_a_breach(gitlab, runner):
    assert runner.client.get("jobs/unheard/of").status_code == 404
    assert gitlab.violations()[0].startswith("unknown_path: -: GET /api/v4/jobs/unheard/of")


def test_a_body_that_is_no_json_object_is_a_breach(gitlab, runner):
    headers = {"RUNNER-TOKEN": runner.token, "Accept": "application/json", "Content-Type": "application/json"}
    assert runner.client.post("jobs/request", content=b"[1", headers=headers).status_code == 403
    assert gitlab.violations()[0].startswith("bad_body")


SESSION = {"url": f"https://runner.example:8093/session/{'0a' * 32}", "authorization": "word"}


def poll_with_session(runner, certificate, *, promised=True, **fields):
    features = {**INFO["features"], "session": promised, "terminal": promised}
    session = {**SESSION, "certificate": certificate, **fields}
    return runner.poll(info={**INFO, "features": features}, session=session)


@pytest.fixture(scope="module")
def certificate():
    return trustme.CA().cert_pem.bytes().decode()


def test_a_session_is_kept_with_the_job_that_the_poll_brought(gitlab, runner, certificate):
    job = gitlab.enqueue(make_job())
    assert gitlab.session(job) is None
    poll_with_session(runner, certificate)
    assert gitlab.session(job) == {**SESSION, "certificate": certificate}


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://runner.example/session/" + "0a" * 32},
        {"url": "https://runner.example/session/short"},
        {"url": f"https://runner.example/session/{'0a' * 32}/exec"},
        {"certificate": "no PEM"},
        {"authorization": ""},
        {"authorization": "two\nlines"},
        {"more": "x"},
        {"promised": False},
    ],
)
def test_a_session_of_the_wrong_form_is_a_breach(gitlab, runner, certificate, wrong):
    poll_with_session(runner, **{"certificate": certificate, **wrong})
    assert [line.split(":")[0] for line in gitlab.violations()] == ["bad_session"]


def test_promised_terminals_without_a_session_are_a_breach(gitlab, runner):
    runner.poll(info={**INFO, "features": {**INFO["features"], "session": True, "terminal": True}})
    assert [line.split(":")[0] for line in gitlab.violations()] == ["bad_session"]
