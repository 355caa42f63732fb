"""Which caches a job has, under which names: a key ends below its project's prefix, whatever it holds."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.execution.caches import (
    CachePlan,
    archive_transfer,
    has_protected_caches,
    is_protected,
    plan_of,
    restore_transfer,
    sanitised,
)
from fleet.execution.facts import CacheFacts, MachineFacts, RunnerFacts
from fleet.execution.flags import DEFAULTS
from fleet.execution.variables import Variable, Variables
from fleet.gitlab.payload import JobPayload

RUNNER = RunnerFacts(
    name="r", short_token="abcdefghi", runner_id=1, system_id="s_1", version="1", server_url="https://gitlab"
)
MACHINE = MachineFacts(instance_id="i-1", home="/home/ci")
PREFIX = "runner/abcdefghi/project/7/"


def payload_of(*caches: dict[str, Any], **changes: Any) -> JobPayload:
    return JobPayload.model_validate(
        {
            "id": 1,
            "token": "t",
            "job_info": {"name": "build it", "project_id": 7, "project_full_path": "group/project"},
            "git_info": {"ref": "main"},
            "cache": [{"key": "k", "paths": ["vendor"], **each} for each in caches],
            **changes,
        }
    )


def planned(
    *caches: dict[str, Any], variables: dict[str, str] | None = None, runner: RunnerFacts = RUNNER, **flags: bool
) -> CachePlan:
    definitions = [Variable(key=key, value=value) for key, value in (variables or {}).items()]
    return plan_of(
        payload=payload_of(*caches),
        runner=runner,
        machine=MACHINE,
        variables=Variables(definitions, tmp="/tmp/x"),
        flags={**DEFAULTS, **flags},
    )


def names(plan: CachePlan) -> list[str]:
    return [key.name for item in plan.items for key in item.keys]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("plain", "plain"),
        ("a/b", "a/b"),
        ("$CI_COMMIT_REF_SLUG-x", "main-x"),
        ("a%2Fb%2e%2E/c", "a/b../c"),
        ("a%2f%2e%2e%2fb", "b"),
        ("../../../etc/passwd", "etc/passwd"),
        ("/absolute", "absolute"),
        ("a\\..\\..\\b", "b"),
        ("a/./b//c/", "a/b/c"),
        ("trailing  \t\n", "trailing"),
        ("a/..  ", None),
        ("x/.. /", None),
        ("b/ /", "b"),
        ("..", None),
        ("%2e%2E%2f", None),
        ("/", None),
        ("a/../", None),
        (" lead", " lead"),
        ("ünïcode ✓", "ünïcode ✓"),
        ("half\ud800", "half\ufffd"),
        ("nul\0", "nul"),
        ("", "build it/main"),
        ("   ", "build it/main"),
    ],
)
def test_a_key_is_expanded_and_made_harmless(written: str, name: str | None) -> None:
    plan = planned({"key": written}, variables={"CI_COMMIT_REF_SLUG": "main"})
    assert names(plan) == ([] if name is None else [name])
    if name is None:
        assert "there is no such cache" in plan.warnings[0]
    else:
        assert plan.items[0].keys[0].object_name == PREFIX + name
        assert plan.items[0].keys[0].local == f"/home/ci/cache/group/project/{name}/cache.zip"


@given(st.text(alphabet="ab./\\%2eEfF \t$\0", max_size=30) | st.text(max_size=30))
def test_no_key_leads_out_of_its_projects_prefix(key: str) -> None:
    for hashed in (False, True):
        for item in planned({"key": key}, FF_HASH_CACHE_KEYS=hashed).items:
            for name in (item.keys[0].object_name, item.keys[0].other_name):
                assert name.startswith(PREFIX)
                parts = name.split("/")
                assert ".." not in parts
                assert "." not in parts
                assert "" not in parts
            assert item.keys[0].local.startswith("/home/ci/cache/group/project/")


@given(st.text(max_size=40))
def test_making_a_key_harmless_twice_changes_nothing_that_leads_anywhere(key: str) -> None:
    assert not sanitised(key).startswith(("/", "../"))


def test_a_key_that_was_changed_is_told() -> None:
    assert planned({"key": "a/../b"}).warnings == ("the cache key 'a/../b' is used as 'b'",)
    assert planned({"key": "b"}).warnings == ()


def test_path_and_shared_make_the_prefix() -> None:
    def object_name(**facts: Any) -> str:
        runner = RunnerFacts(
            name="r", short_token="abcdefghi", runner_id=1, system_id="s", version="1", server_url="https://g",
            cache=CacheFacts(**facts),
        )  # fmt: skip
        return planned({}, runner=runner).items[0].keys[0].object_name

    assert object_name() == "runner/abcdefghi/project/7/k"
    assert object_name(shared=True) == "project/7/k"
    assert object_name(path="/team/a/") == "team/a/runner/abcdefghi/project/7/k"
    assert object_name(path="team", shared=True) == "team/project/7/k"


def test_the_cache_directory_is_the_runners() -> None:
    def local(cache_dir: str) -> str:
        runner = RunnerFacts(
            name="r", short_token="abcdefghi", runner_id=1, system_id="s", version="1", server_url="https://g",
            cache_dir=cache_dir,
        )  # fmt: skip
        return planned({}, runner=runner).items[0].keys[0].local

    assert local("/cache") == "/cache/group/project/k/cache.zip"
    assert local("kept") == "/home/ci/kept/group/project/k/cache.zip"


def test_hashed_keys_are_sharded_and_each_naming_is_looked_for_from_the_other() -> None:
    digest = hashlib.sha256(b"a/b").hexdigest()
    plain, hashed = (planned({"key": "a/b"}, FF_HASH_CACHE_KEYS=on).items[0].keys[0] for on in (False, True))
    assert plain.object_name == PREFIX + "a/b"
    assert hashed.object_name == f"{PREFIX}{digest[:2]}/{digest}"
    assert (plain.other_name, hashed.other_name) == (hashed.object_name, plain.object_name)
    assert hashed.local == f"/home/ci/cache/group/project/{digest}/cache.zip"
    assert hashed.name == "a/b"


def test_fallbacks_come_in_order_each_once_and_the_variable_last() -> None:
    plan = planned(
        {"key": "own", "fallback_keys": ["$F", "second", "own", ".."]},
        variables={"F": "first", "CACHE_FALLBACK_KEY": "last"},
    )
    assert names(plan) == ["own", "first", "second", "last"]


@pytest.mark.parametrize("last", ["main-protected", "main-protected  ", "x/../main-protected", "main%2Dprotected/."])
def test_the_variable_leads_nobody_to_a_protected_cache(last: str) -> None:
    plan = planned({}, variables={"CACHE_FALLBACK_KEY": last})
    expected = ["k", sanitised(last)] if "%2D" in last else ["k"]
    assert names(plan) == expected
    assert ("it is ignored" in "".join(plan.warnings)) is (len(expected) == 1)


@pytest.mark.parametrize(
    ("policy", "restores", "saves"),
    [("", True, True), ("pull-push", True, True), ("pull", True, False), ("push", False, True), ("$P", True, False)],
)
def test_a_policy_says_what_is_done(policy: str, restores: bool, saves: bool) -> None:
    plan = planned({"policy": policy}, variables={"P": "pull"})
    assert (restore_transfer(plan, "/p") is not None, archive_transfer(plan, "/p", "success", 0) is not None) == (
        restores, saves,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("when", "stages"),
    [("on_success", ["success"]), ("", ["success"]), ("on_failure", ["failure"]), ("always", ["success", "failure"])],
)
def test_when_says_after_what_end_it_is_saved(when: str, stages: list[str]) -> None:
    plan = planned({"when": when})
    assert [on for on in ("success", "failure") if archive_transfer(plan, "/p", on, 0)] == stages


@pytest.mark.parametrize("wrong", [{"policy": "both"}, {"when": "never"}])
def test_an_unknown_policy_or_when_is_a_warning_and_no_cache(wrong: dict[str, str]) -> None:
    plan = planned(wrong)
    assert plan.items == ()
    assert "unknown" in plan.warnings[0]


def test_a_cache_of_nothing_is_none() -> None:
    assert planned({"paths": []}).items == ()
    assert planned({"paths": [], "untracked": True}).items[0].untracked


def test_paths_are_expanded() -> None:
    assert planned({"paths": ["$D/x", "y"]}, variables={"D": "deps"}).items[0].paths == ("deps/x", "y")


def test_how_it_is_transferred_comes_from_variables() -> None:
    said = {
        "CACHE_COMPRESSION_FORMAT": "tarzstd", "CACHE_COMPRESSION_LEVEL": "fastest", "CACHE_REQUEST_TIMEOUT": "3",
        "RESTORE_CACHE_ATTEMPTS": "4",
    }  # fmt: skip
    plan = planned({}, variables=said)
    assert (plan.form, plan.level, plan.timeout_s, plan.attempts) == ("tarzstd", "fastest", 180.0, 4)
    assert planned({}).timeout_s == 600.0


@pytest.mark.parametrize("name", ["CACHE_COMPRESSION_FORMAT", "CACHE_COMPRESSION_LEVEL", "CACHE_REQUEST_TIMEOUT"])
def test_what_cannot_be_read_is_warned_of(name: str) -> None:
    plan = planned({}, variables={name: "soon"})
    assert (plan.form, plan.level, plan.timeout_s) == ("zip", "default", 600.0)
    assert name in plan.warnings[0]


@pytest.mark.parametrize(
    ("protected", "said", "expected"),
    [
        (True, [], True),
        (False, ["true"], False),
        (None, ["true", "false"], True),
        (None, ["false", "true"], False),
        (None, [], False),
    ],
)
def test_gitlab_says_whether_the_ref_is_protected(protected: bool | None, said: list[str], expected: bool) -> None:
    variables = [{"key": "CI_COMMIT_REF_PROTECTED", "value": value} for value in said]
    payload = payload_of(git_info={"ref": "main", "protected": protected}, variables=variables)
    assert is_protected(payload) is expected
    assert has_protected_caches(payload, ()) is expected


def test_a_protected_key_makes_the_caches_protected() -> None:
    payload = payload_of({"key": "x-protected"})
    assert has_protected_caches(payload, planned({"key": "x-protected"}).items)
    assert not has_protected_caches(payload, planned({"key": "x-non_protected"}).items)
