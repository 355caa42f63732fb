from __future__ import annotations

import concurrent.futures
import time

from fleet.demo.payload import make_job
from tests.contract.pretend_gitlab.raw_runner import INFO


def test_jobs_come_in_order_each_once_and_then_nothing(gitlab, runner):
    queued = [gitlab.enqueue(make_job(name=f"job {n}")) for n in range(3)]
    assert queued == [1001, 1002, 1003]
    assert [runner.take().id for _ in queued] == queued
    empty = runner.poll()
    assert empty.status_code == 204
    assert empty.headers["X-GitLab-Last-Update"]
    assert gitlab.violations() == []


def test_a_job_for_one_runner_is_not_given_to_another(gitlab, runner, new_runner):
    other = new_runner()
    queued = gitlab.enqueue(make_job(), runner_id=1)
    assert other.poll().status_code == 204
    assert runner.take().id == queued


def test_the_payload_is_complete_and_carries_this_hand_overs_token(gitlab, runner):
    gitlab.enqueue(
        make_job(script=["echo 1"], after_script=["echo 2"], variables={"COLOUR": "red"}, timeout=90, image="alpine")
    )
    payload = runner.take().payload
    variables = {item["key"]: item["value"] for item in payload["variables"]}
    assert variables["CI_JOB_TOKEN"] == payload["token"]
    assert variables["CI_JOB_ID"] == "1001"
    assert variables["COLOUR"] == "red"
    assert variables["GIT_STRATEGY"] == "none"
    assert None not in variables.values()
    assert payload["token"] in payload["git_info"]["repo_url"]
    assert payload["runner_info"]["timeout"] == 90
    assert [step["name"] for step in payload["steps"]] == ["script", "after_script"]
    assert payload["image"] == {"name": "alpine"}


def test_the_advertised_features_are_remembered_and_decide(gitlab, runner):
    refused = gitlab.enqueue(make_job(), requires=["vault_secrets"])
    given = gitlab.enqueue(make_job(), requires=["cancelable"])
    assert runner.take().id == given
    assert gitlab.job(refused).failure_reason == "runner_unsupported"
    assert gitlab.job(given).features == INFO["features"]


def test_without_holding_an_up_to_date_poll_is_answered_at_once(gitlab, runner):
    runner.poll()
    began = time.monotonic()
    assert runner.poll().status_code == 204
    assert time.monotonic() - began < 1


def test_a_held_poll_is_answered_when_a_job_comes(gitlab, runner):
    gitlab.set_knobs(hold_s=15)
    runner.poll()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(runner.poll)
        assert concurrent.futures.wait([held], timeout=0.3).not_done
        began = time.monotonic()
        gitlab.enqueue(make_job())
        assert held.result(10).status_code == 201
    assert time.monotonic() - began < 2


def test_a_poll_without_last_update_is_never_held(gitlab, runner):
    gitlab.set_knobs(hold_s=15)
    began = time.monotonic()
    assert runner.poll(last_update="").status_code == 204
    assert time.monotonic() - began < 2


def test_a_held_poll_ends_empty_after_its_time(gitlab, runner):
    gitlab.set_knobs(hold_s=0.4)
    runner.poll()
    began = time.monotonic()
    assert runner.poll().status_code == 204
    assert 0.3 < time.monotonic() - began < 5


def test_after_a_job_the_next_poll_is_not_held_while_more_jobs_wait(gitlab, runner):
    gitlab.set_knobs(hold_s=15)
    runner.poll()
    gitlab.enqueue(make_job())
    gitlab.enqueue(make_job())
    began = time.monotonic()
    assert [runner.poll().status_code, runner.poll().status_code] == [201, 201]
    assert time.monotonic() - began < 2


def test_a_held_poll_whose_client_hung_up_gets_no_job(gitlab, new_runner):
    gitlab.set_knobs(hold_s=15)
    token = gitlab.create_runner()["token"]
    vanishing, staying = new_runner(token), new_runner(token)
    vanishing.poll()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(vanishing.client.post, "jobs/request", timeout=0.3, headers={"RUNNER-TOKEN": token},
                           json={"info": INFO, "token": token, "system_id": vanishing.system_id,
                                 "last_update": vanishing.last_update})  # fmt: skip
        assert held.exception(5) is not None
    vanishing.close()
    queued = gitlab.enqueue(make_job())
    assert staying.take().id == queued
    assert gitlab.job(queued).attempts == 1


def test_an_unacknowledged_job_returns_to_the_queue_under_a_new_token(gitlab, runner):
    gitlab.set_knobs(ack_within_s=0.2)
    gitlab.enqueue(make_job())
    first = runner.take()
    gitlab.wait_for(first.id, states=["pending"], timeout=5)
    gitlab.set_knobs(ack_within_s=60)
    second = runner.take_and_acknowledge()
    assert second.id == first.id
    assert second.token != first.token
    assert first.acknowledge().status_code == 403
    assert gitlab.violations() == []
    view = gitlab.job(first.id)
    assert (view.requeued, view.attempts, view.state) == (1, 2, "running")


def test_going_on_with_a_hand_over_that_was_taken_back_is_a_breach(gitlab, runner):
    gitlab.set_knobs(ack_within_s=0.2)
    gitlab.enqueue(make_job())
    first = runner.take()
    gitlab.wait_for(first.id, states=["pending"], timeout=5)
    assert first.acknowledge().status_code == 403
    assert first.patch(b"still here\n").status_code == 403
    assert [line.split(":")[0] for line in gitlab.violations()] == ["call_after_end"]
