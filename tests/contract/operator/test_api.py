"""The JSON API of a running manager."""

from __future__ import annotations

import pytest

from fleet.model.lifecycle import InstanceState as S
from tests.contract.operator.fleet_world import POOL, RUNNER, running, write_config


def test_status_tells_the_manager_and_its_pools(world) -> None:
    world.lease(world.instance(), world.job())
    said = world.get("/api/v1/status").json()
    assert said["manager"]["state"] == "running"
    assert said["manager"]["ready"] is True
    assert said["manager"]["owned"] == [POOL]
    assert [pool["pool"] for pool in said["pools"]] == [POOL]
    assert said["pools"][0]["slots"]["used"] == 1
    assert said["jobs"] == {"starting": 1}
    assert said["sweeping"] == {"on": True, "reason": None}


@pytest.mark.parametrize(
    "path", ["status", "pools", "instances", "jobs", "runners", "managers", "placements", "plan", "journal"]
)
def test_every_question_has_an_answer_without_secrets(world, path) -> None:
    world.lease(world.instance(), world.job())
    world.manager.planner.activate()
    said = world.get(f"/api/v1/{path}")
    assert said.status_code == 200
    assert said.headers["content-type"] == "application/json"
    assert "word-that-is-secret" not in said.text
    assert "job-token" not in said.text
    if path != "status":
        assert said.json()["items"]


def test_lists_come_in_pages_that_miss_nothing(world) -> None:
    made = [world.instance() for _ in range(7)]
    seen, after = [], ""
    while True:
        said = world.get("/api/v1/instances", params={"limit": 3, "after": after}).json()
        assert len(said["items"]) <= 3
        seen += [each["instance_id"] for each in said["items"]]
        if said["next"] is None:
            break
        after = said["next"]
    assert sorted(seen) == sorted(made)


def test_lists_are_narrowed(world) -> None:
    gone = world.instance(state=S.REQUESTED)
    world.goes_through(gone, S.DELETING, S.GONE)
    alive = world.instance()
    ids = lambda **wanted: [e["instance_id"] for e in world.get("/api/v1/instances", params=wanted).json()["items"]]  # noqa: E731
    assert ids() == [alive]
    assert ids(state="gone") == [gone]
    assert set(ids(state="all")) == {gone, alive}
    assert ids(pool="another") == []
    done, waiting = world.job(), world.job()
    world.finish(done)
    jobs = lambda **wanted: [e["job_key"] for e in world.get("/api/v1/jobs", params=wanted).json()["items"]]  # noqa: E731
    assert jobs() == [waiting]
    assert jobs(state="finished", runner=RUNNER) == [done]


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("/api/v1/nothing", 404, "not_found"),
        ("/api/v1/explain/nobody", 404, "not_found"),
        ("/api/v1/instances?state=odd", 400, "bad_query"),
        ("/api/v1/instances?limit=none", 400, "bad_query"),
        ("/api/v1/instances?after=nonsense", 400, "bad_query"),
        ("/api/v1/journal?after=nonsense", 400, "bad_query"),
        ("/api/v1/plan?pool=another", 404, "not_found"),
        ("/api/v1/reload", 405, "method_not_allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_form(world, path, status, slug) -> None:
    said = world.get(path)
    assert said.status_code == status
    assert said.json()["error"]["slug"] == slug
    assert said.json()["error"]["message"]


def test_draining_is_ordered_and_taken_back(world) -> None:
    machine = world.instance()
    assert world.post(f"/api/v1/instances/{machine}/drain").status_code == 200
    [found] = world.get("/api/v1/instances").json()["items"]
    assert (found["state"], found["drain_reason"]) == ("draining", "a person asked for it")
    assert world.post(f"/api/v1/instances/{machine}/undrain").status_code == 200
    [found] = world.get("/api/v1/instances").json()["items"]
    assert (found["state"], found["drain_reason"]) == ("ready", None)


def test_a_leased_instance_is_removed_by_force_alone(world) -> None:
    machine, job = world.instance(), world.job()
    world.lease(machine, job)
    world.run(job)
    said = world.post(f"/api/v1/instances/{machine}/remove")
    assert said.status_code == 409
    assert "--force" in said.json()["error"]["message"]
    assert world.get("/api/v1/instances").json()["items"][0]["state"] == "ready"
    assert world.post(f"/api/v1/instances/{machine}/remove", params={"force": "true"}).status_code == 200
    [found] = world.get("/api/v1/instances").json()["items"]
    assert found["state"] == "deleting"
    assert found["slots"] == []


def test_an_instance_that_is_not_there_is_told(world) -> None:
    assert world.post("/api/v1/instances/i-none/drain").status_code == 404


def test_a_waiting_job_is_explained_by_the_plan(world) -> None:
    job = world.job()
    world.manager.planner.activate()
    said = world.get(f"/api/v1/explain/{job}").json()
    assert said["kind"] == "job"
    assert "waits for a slot of pool linux" in said["answer"][0]
    wait = world.manager.planner.plans[POOL].waits[0]
    assert said["answer"][1] == f"Why: {wait.reason} ({wait.slug.value})." + said["answer"][1].partition(").")[2]
    assert [line["new"] for line in said["story"]][:2] == ["received", "waiting"]
    by_number = world.get(f"/api/v1/explain/{said['job']['gitlab_job_id']}").json()
    assert by_number["id"] == job


def test_a_removed_machine_is_explained_by_its_story(world) -> None:
    machine = world.instance(machine_id="vm-17")
    world.post(f"/api/v1/instances/{machine}/drain")
    world.goes_through(machine, S.DELETING, S.GONE)
    said = world.get("/api/v1/explain/vm-17").json()
    assert said["id"] == machine
    text = " ".join(said["answer"])
    assert "is gone since" in text
    assert "a person asked for it" in text
    assert "a test wants it" in text


def test_without_a_token_a_web_page_may_not_call(world) -> None:
    assert world.get("/api/v1/status", headers={"Host": "evil.example"}).status_code == 403
    said = world.post("/api/v1/reload", headers={"Origin": "http://evil.example"})
    assert said.status_code == 403
    assert world.reloader.loaded == 0


def test_with_a_token_every_call_needs_it(config, tmp_path) -> None:
    write_config(config, tmp_path / "state", fleet='api_token = "let-me-in"')
    with running(config) as world:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "let-me-in"}):
            said = world.get("/api/v1/status", headers=headers)
            assert said.status_code == 401
            assert said.json()["error"]["slug"] == "unauthorized"
        assert world.get("/api/v1/status", headers={"Authorization": "Bearer let-me-in"}).status_code == 200
        assert world.client.get(f"{world.web.api_url}/metrics").status_code == 200


def test_a_reload_brings_the_file_into_force_or_says_why_not(world, config) -> None:
    text = config.read_text()
    config.write_text(text.replace("max_instances = 5", "max_instances = 6"))
    assert world.post("/api/v1/reload").status_code == 200
    assert world.manager.book.pools[POOL].limits.max_instances == 6
    config.write_text(text.replace("max_instances = 5", 'max_instances = "many"'))
    said = world.post("/api/v1/reload")
    assert said.status_code == 422
    assert "max_instances" in said.json()["error"]["message"]
    assert world.manager.book.pools[POOL].limits.max_instances == 6


def test_sweeping_is_switched_with_its_reason(world) -> None:
    assert world.post("/api/v1/sweeping", params={"on": "false"}).status_code == 200
    assert world.get("/api/v1/status").json()["sweeping"] == {"on": False, "reason": "a person asked for it"}
    assert world.post("/api/v1/sweeping", params={"on": "true"}).status_code == 200
    assert world.get("/api/v1/status").json()["sweeping"]["on"] is True
    assert world.post("/api/v1/sweeping").status_code == 400
