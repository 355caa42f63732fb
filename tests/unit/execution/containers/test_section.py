from __future__ import annotations

import base64
import dataclasses
import json
import secrets
from typing import Any

import pytest

from fleet.execution.containers.registries import Login
from fleet.execution.jobfile import Rendered
from fleet.execution.refused import JobRefused
from fleet.gitlab.failure_reasons import FailureReason
from fleet.settings.docker import DockerTable
from tests.contract.execution.job_inputs import LEASE, machine_at, payload_of, render_with


def rendered(payload: dict[str, Any] | None = None, *, logins: tuple[Login, ...] = (), **docker: Any) -> Rendered:
    changes = {"image": {"name": "alpine:3"}} | (payload or {})
    table = DockerTable.model_validate(docker)
    facts = {"docker": table, "executor": "docker-autoscaler", "builds_dir": "/builds", "cache_dir": "/cache"}
    return render_with(payload_of(**changes), use_common_build_dir=True, registry_logins=logins, **facts)


def section(payload: dict[str, Any] | None = None, **docker: Any) -> dict[str, Any]:
    found: dict[str, Any] = rendered(payload, **docker).job_file["containers"]
    return found


def refused(payload: dict[str, Any] | None = None, **docker: Any) -> str:
    with pytest.raises(JobRefused) as caught:
        rendered(payload, **docker)
    assert caught.value.reason is FailureReason.RUNNER_CONFIGURATION_ERROR
    return caught.value.message


def option(spec: dict[str, Any], name: str) -> list[str]:
    words = spec["options"]
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def services(*names: str, **more: Any) -> dict[str, Any]:
    return {"services": [{"name": name} | more for name in names]}


def test_a_job_file_in_containers_is_for_sh_in_builds_and_open_to_every_user_of_an_image() -> None:
    job_file = rendered().job_file
    assert (job_file["shell"], job_file["user"], job_file["login"], job_file["cwd"]) == ("sh", None, False, "/builds")
    assert {entry["mode"] for entry in job_file["directories"]} == {0o777}
    assert job_file["cleanup_paths"] == ["/builds/group/project.tmp"]
    where = {stage["kind"]: stage.get("where") for stage in job_file["stages"]}
    assert {kind for kind, place in where.items() if place == "build"} == {"step", "after_script"}
    assert json.loads(json.dumps(job_file)) == job_file


def test_a_job_without_an_image_gets_the_runners_or_is_refused() -> None:
    assert section({"image": None}, image="ruby:$VERSION", allowed_images=["x/*"])["image"]["image"] == "ruby:"
    assert "names no image" in refused({"image": None})
    assert "is empty once" in refused({"image": {"name": "$NOTHING"}})


def test_the_name_of_the_image_is_a_variable_with_others_put_in() -> None:
    found = section({"image": {"name": "alpine:$V"}, "variables": {"V": "3.19"}})
    assert found["image"]["image"] == found["environment"]["CI_JOB_IMAGE"] == "alpine:3.19"


@pytest.mark.parametrize(
    ("patterns", "image", "is_allowed"),
    [
        ([], "anything:1", True),
        (["ruby:*"], "ruby:3", True),
        (["ruby:*"], "my/ruby:3", False),
        (["my/**"], "my/a/b:3", True),
        (["my/*"], "my/a/b:3", False),
        (["**/b:*"], "my/a/b:3", True),
        (["reg.{a,b}/x:?"], "reg.b/x:1", True),
        (["reg.[!b]/x:1"], "reg.b/x:1", False),
        (["other"], "the/default:1", True),
    ],
)
def test_images_are_held_to_the_allow_list(patterns: list[str], image: str, is_allowed: bool) -> None:
    job: dict[str, Any] = {"image": {"name": image}}
    if is_allowed:
        assert section(job, allowed_images=patterns, image="the/default:1")["image"]["image"] == image
    else:
        assert "is not allowed on this runner" in refused(job, allowed_images=patterns, image="the/default:1")
        assert "is not allowed" in refused(services(image), allowed_services=patterns)


def test_pull_policies_are_the_jobs_as_far_as_the_runner_allows() -> None:
    asks: dict[str, Any] = {"image": {"name": "a", "pull_policy": ["never", "always"]}}
    assert section()["image"]["pull"] == ["always"]
    assert section(pull_policy=["always", "never"])["image"]["pull"] == ["always", "never"]
    assert section(asks)["image"]["pull"] == ["always"]
    assert section(asks, allowed_pull_policies=["never", "always"])["image"]["pull"] == ["never", "always"]
    assert "not allowed" in refused(asks, pull_policy="if-not-present")
    assert "not known" in refused({"image": {"name": "a", "pull_policy": ["sometimes"]}})


def test_the_runners_user_wins_and_others_must_be_allowed() -> None:
    asks: dict[str, Any] = {
        "image": {"name": "a", "executor_opts": {"docker": {"user": 1000, "platform": "linux/arm64"}}}
    }
    found = section(asks)["image"]
    assert (found["user"], option(found, "--user"), found["platform"]) == ("1000", ["1000"], "linux/arm64")
    assert section(asks, user="ci")["image"]["user"] == "ci"
    assert "'1000' is not allowed" in refused(asks, allowed_users=["app"])
    assert "the image's own" in refused(allowed_users=["app"])
    assert section(allowed_users=["", "app"])["image"]["user"] == ""


def test_volumes_are_kept_by_identity_and_place_and_protected_ones_are_apart() -> None:
    fetch = {"variables": [{"key": "GIT_STRATEGY", "value": "fetch"}], "git_info": {"repo_url": "http://h/g/p.git"}}
    first, other = section(fetch)["volumes"], section(fetch | {"job_info": {"project_id": 43}})["volumes"]
    assert [each["keep"] for each in first] == [True, True]
    assert not {each["name"] for each in first} & {each["name"] for each in other}
    protected = section(fetch | {"git_info": {"repo_url": "http://h/g/p.git", "protected": True}})["volumes"]
    assert [each["name"] for each in protected] == [f"{each['name']}-protected" for each in first]
    by_key = section(fetch | {"cache": [{"key": "a-protected", "paths": ["x"]}]})["volumes"]
    assert [each["name"] for each in by_key] == [each["name"] for each in protected]


def test_what_a_user_says_of_protection_is_not_believed() -> None:
    said = [{"key": "CI_COMMIT_REF_PROTECTED", "value": each} for each in ("false", "true")]
    assert not any(each["name"].endswith("-protected") for each in section({"variables": said})["volumes"])
    assert section({"variables": said[::-1]})["volumes"][0]["name"].endswith("-protected")


def test_a_builds_directory_ends_with_the_job_unless_it_is_fetched_into() -> None:
    by_place = {each["labels"]["com.gitlab.gitlab-runner.destination"]: each for each in section()["volumes"]}
    assert (by_place["/builds"]["keep"], by_place["/cache"]["keep"]) == (False, True)
    assert not any(each["keep"] for each in section(disable_cache=True)["volumes"])
    assert all(each["keep"] for each in section(disable_cache=True, volume_keep=True)["volumes"])


def test_volumes_of_the_settings_are_read_in_all_their_forms() -> None:
    written = ["/cache", "/srv/x:/x:ro", "named:/n", "data", "/srv/y:/x"]
    result = rendered(volumes=written)
    found = result.job_file["containers"]
    kept = [each["name"] for each in found["volumes"]]
    assert found["mounts"] == [
        f"{kept[0]}:/cache", "/srv/x:/x:ro", "named:/n", f"{kept[1]}:/builds/group/project/data", f"{kept[2]}:/builds",
    ]  # fmt: skip
    assert [place["path"] for place in found["places"]] == ["/cache", "/builds/group/project/data", "/builds"]
    assert any("there is one at /x already" in each for each in result.warnings)
    assert "is not understood" in refused(volumes=["a:b:c:d"])


def test_a_directory_of_the_machine_may_hold_builds_or_all_kept_volumes() -> None:
    assert section(volumes=["/srv/b:/builds"])["places"] == [
        {"path": "/builds", "host_path": "/srv/b"},
        {"path": "/cache"},
    ]
    [place] = [each for each in section(cache_dir="/srv/c")["places"] if each["path"] == "/cache"]
    assert place["host_path"].startswith("/srv/c/runner-")


def test_services_are_the_runners_first_with_names_from_their_images() -> None:
    job = services("reg.example.com:5000/group/name:1", "redis", alias="db, cache")
    found = section(job, services=[{"name": "postgres:$PG", "environment": ["A=b"]}], wait_for_services_timeout=-1)
    assert [each["name"] for each in found["services"]] == ["postgres", "reg.example.com/group/name", "redis"]
    aliases = [each["aliases"] for each in found["services"]]
    assert aliases == [
        ["postgres"],
        ["reg.example.com__group__name", "reg.example.com-group-name", "db", "cache"],
        ["redis"],
    ]
    assert found["services"][0]["environment"]["A"] == "b"
    assert found["wait_for_services_s"] == -1
    assert found["network"]["name"] == "runner-abcdefghi-42-1-4711"
    assert found["environment"]["CI_BUILD_NETWORK_NAME"] == found["network"]["name"]
    assert all(option(each, "--network") == [found["network"]["name"]] for each in (found["image"], *found["services"]))
    assert "this runner allows 1" in refused(job, services_limit=1)


def test_a_name_that_a_service_has_is_no_other_services() -> None:
    result = rendered(services("redis:1", "redis:2"))
    assert [each["aliases"] for each in result.job_file["containers"]["services"]] == [["redis"], []]
    assert any("'redis'" in each for each in result.warnings)


def test_services_see_what_is_public_and_what_is_theirs() -> None:
    hidden = secrets.token_hex(8)
    variables = [
        {"key": "OPEN", "value": "1", "public": True},
        {"key": "HIDDEN", "value": hidden},
        {"key": "MASKED", "value": hidden, "public": True, "masked": True},
    ]
    own = [{"key": "MINE", "value": "of $HIDDEN"}, {"key": "RAW", "value": "$HIDDEN", "raw": True}]
    found = section({"variables": variables} | services("redis", variables=own))
    seen = found["services"][0]["environment"]
    assert (seen["OPEN"], seen["MINE"], seen["RAW"]) == ("1", f"of {hidden}", "$HIDDEN")
    assert seen["CI_PROJECT_DIR"] == "/builds/group/project"
    assert "HIDDEN" not in seen
    assert "MASKED" not in seen
    assert found["environment"]["HIDDEN"] == hidden
    assert hidden not in " ".join(found["image"]["options"])


@pytest.mark.parametrize(
    ("mode", "has_alias", "has_link"), [("mine", True, False), ("bridge", False, True), ("host", False, False)]
)
def test_a_network_of_the_settings_is_used_as_it_is(mode: str, has_alias: bool, has_link: bool) -> None:
    found = section(services("redis"), network_mode=mode)
    assert found["network"] is None
    assert option(found["image"], "--network") == [mode]
    assert bool(option(found["services"][0], "--network-alias")) is has_alias
    assert bool(option(found["image"], "--link")) is has_link


def test_every_job_has_a_network_of_its_own_under_the_flag() -> None:
    flag = {"variables": {"FF_NETWORK_PER_BUILD": "true"}}
    found = section(flag, network_mtu=1400, enable_ipv6=True)["network"]
    assert found["options"] == ["--driver", "bridge", "--ipv6", "--opt", "com.docker.network.driver.mtu=1400"]
    assert section()["network"] is None


def test_rights_and_limits_become_options() -> None:
    keys: dict[str, Any] = {
        "memory": "512m", "memory_swap": "1g", "cpus": "1.5", "cap_add": ["NET_ADMIN"], "cap_drop": ["CHOWN"],
        "devices": ["/dev/kvm"], "gpus": "all", "tmpfs": {"/t": "rw"}, "sysctls": {"a.b": "1"},
        "ulimit": {"nofile": "9"}, "dns": ["1.1.1.1"], "extra_hosts": ["h:1.2.3.4"], "hostname": "me",
        "shm_size": 1000, "log_options": {"k": "v"},
        "security_opt": ["no-new-privileges"], "oom_score_adjust": 5, "runtime": "runsc", "pid_mode": "host",
    }  # fmt: skip
    spec = section(**keys)["image"]
    expected = {
        "--memory": "512m", "--memory-swap": "1g", "--cpus": "1.5", "--cap-add": "NET_ADMIN", "--cap-drop": "CHOWN",
        "--device": "/dev/kvm", "--gpus": "all", "--tmpfs": "/t:rw", "--sysctl": "a.b=1", "--ulimit": "nofile=9",
        "--dns": "1.1.1.1", "--add-host": "h:1.2.3.4", "--hostname": "me", "--shm-size": "1000", "--log-opt": "k=v",
        "--security-opt": "no-new-privileges", "--oom-score-adj": "5", "--runtime": "runsc", "--pid": "host",
    }  # fmt: skip
    assert {name: option(spec, name) for name in expected} == {name: [value] for name, value in expected.items()}
    assert "--privileged" not in spec["options"]


def test_privileged_is_for_the_images_that_may_be() -> None:
    job = services("docker:dind")
    assert "--privileged" in section(job, privileged=True)["image"]["options"]
    found = section(job, privileged=True, allowed_privileged_images=["docker:*"])
    assert "--privileged" not in found["image"]["options"]
    assert "--privileged" in found["services"][0]["options"]
    found = section(job, privileged=True, services_privileged=False)
    assert "--privileged" not in found["services"][0]["options"]
    found = section(job, services_privileged=True, allowed_privileged_services=["other"])
    assert "--privileged" not in found["services"][0]["options"]


def test_entry_points_of_jobs_may_be_forbidden() -> None:
    job: dict[str, Any] = {"image": {"name": "a", "entrypoint": ["/e", "x"]}} | services("redis", entrypoint=["/r"])
    assert section(job)["image"]["entrypoint"] == ["/e", "x"]
    assert section(job)["services"][0]["entrypoint"] == ["/r"]
    result = rendered(job, disable_entrypoint_overwrite=True)
    found = result.job_file["containers"]
    assert (found["image"]["entrypoint"], found["services"][0]["entrypoint"]) == (None, None)
    assert len([each for each in result.warnings if "entrypoint" in each]) == 2


def test_credentials_are_taken_by_source_and_then_by_the_nearest_path() -> None:
    def auth(text: str) -> dict[str, str]:
        return {"auth": base64.b64encode(text.encode()).decode()}

    config = {
        "auths": {
            "reg.a": auth("one:1"),
            "https://reg.a/group": auth("two:2"),
            "https://index.docker.io/v1/": auth("h:3"),
        }
    }
    job: dict[str, Any] = {
        "image": {"name": "reg.a/group/x:1"},
        "variables": {"DOCKER_AUTH_CONFIG": json.dumps(config)},
        "credentials": [{"type": "registry", "url": "reg.c", "username": "job", "password": "4"}],
    } | services("reg.a/groups/x", "redis", "reg.c/x", "reg.b/x", "reg.d/x")
    logins = (Login(place="reg.b", username="b", password="5"), Login(place="reg.c", username="c", password="6"))
    found = rendered(job, logins=logins).job_file["containers"]
    users = [spec["auth"] and spec["auth"]["username"] for spec in (found["image"], *found["services"])]
    assert users == ["two", "one", "h", "c", "b", None]
    assert found["services"][1]["auth"]["registry"] == "https://index.docker.io/v1/"


def test_debug_of_services_is_the_runners_to_allow() -> None:
    asks = payload_of(variables={"CI_DEBUG_SERVICES": "true"}, image={"name": "a"})
    facts: dict[str, Any] = {"docker": DockerTable(), "builds_dir": "/builds"}
    assert render_with(asks, **facts).job_file["containers"]["service_logs"] is True
    result = render_with(asks, **facts, debug_trace_disabled=True)
    assert result.job_file["containers"]["service_logs"] is False
    assert any("CI_DEBUG_SERVICES" in each for each in result.warnings)


def test_without_open_files_the_images_user_is_given_what_is_made() -> None:
    job_file = rendered({"variables": {"FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR": "true"}}).job_file
    assert job_file["containers"]["chown"] is True
    assert {entry["mode"] for entry in job_file["directories"]} == {0o700}


def test_names_are_of_the_slot_and_fit_for_dns() -> None:
    lease = dataclasses.replace(LEASE, project_concurrent_id=5)
    facts: dict[str, Any] = {"docker": DockerTable(), "short_token": "Ab_9!xYz-", "lease": lease}
    name = render_with(payload_of(image={"name": "a"}), **facts).job_file["containers"]["image"]["container"]
    assert name.startswith("runner-ab-9-xyz--project-42-concurrent-5-")
    assert name.endswith("-build")


def test_git_of_the_machine_is_not_needed_in_containers() -> None:
    git = {"git_info": {"repo_url": "http://h/g/p.git", "sha": "a" * 40}}
    facts: dict[str, Any] = {"docker": DockerTable(), "builds_dir": "/builds"}
    result = render_with(
        payload_of(image={"name": "a"}, **git), machine=machine_at("/", git=None, arch="aarch64"), **facts
    )
    [stage] = [each for each in result.job_file["stages"] if each["kind"] == "get_sources"]
    assert "git is not installed" not in stage["script"]
    assert result.job_file["containers"]["helper"]["image"].endswith(":arm64-latest")


def test_a_seccomp_file_of_this_host_goes_along_and_other_options_stay() -> None:
    table = DockerTable(security_opt=("seccomp=/etc/p.json", "seccomp=unconfined", "apparmor=x"))
    facts: dict[str, Any] = {"docker": table, "seccomp_profiles": {"/etc/p.json": "{}"}}
    found = render_with(payload_of(image={"name": "a"}), **facts).job_file["containers"]
    assert option(found["image"], "--security-opt") == ["seccomp={profile:0}", "seccomp=unconfined", "apparmor=x"]
    assert found["profiles"] == ["{}"]
