"""Sources over HTTP from a git server that checks the job token: clone, fetch, submodules, and what is left behind."""

from __future__ import annotations

import pytest

from tests.acceptance.standing import standing

SUCCESS = ("success", "", 0)
LEFT = 'test -e left-behind && echo "used again" || echo "made anew"; touch left-behind; git status --short | wc -l'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("sources") / "m", warm=1) as made:
        yield made


def commit(place, project, **files):
    return place.gitlab.commit(project, {name.replace("__", "/"): text for name, text in files.items()})


def test_a_clone_has_the_files_of_the_commit_and_no_token_in_its_configuration(place):
    source = commit(place, "group/first", README="hello\n", deep__file="deep\n")
    ended = place.run(
        "cat README deep/file",
        "git rev-parse HEAD",
        'grep -r "$CI_JOB_TOKEN" .git && echo leaked || echo clean',
        "git config remote.origin.url",
        git=source,
        project="group/first",
    )
    assert ended.end == SUCCESS
    assert {"hello", "deep", source.sha, "clean", f"{place.gitlab.url}/group/first.git"} <= set(ended.lines)


def test_a_fetch_uses_the_working_copy_of_the_job_before_again_and_cleans_it(place):
    source = commit(place, "group/again", README="one\n")
    first = place.run(LEFT, "cat README", git=source)
    source = commit(place, "group/again", README="two\n", NEW="new\n")
    second = place.run("git reflog | wc -l", "ls -A", "cat README", git=source)
    third = place.run(
        "echo $CI_COMMIT_SHA", "git clean -nffdx", LEFT, git=source, variables={"GIT_CLEAN_FLAGS": "none"}
    )
    assert [first.end, second.end, third.end] == [SUCCESS] * 3
    assert {"made anew", "one"} <= set(first.lines)
    assert {"two", "NEW"} <= set(second.lines)
    assert "left-behind" not in second.lines
    assert not second.has("Created fresh repository")
    assert first.has("Created fresh repository")
    fourth = place.run(LEFT, git=source, variables={"GIT_CLEAN_FLAGS": "none"})
    assert "used again" in fourth.lines


def test_a_clone_strategy_begins_from_nothing(place):
    source = commit(place, "group/clone", README="one\n")
    place.run(LEFT, git=source)
    ended = place.run("ls -A", git=source, variables={"GIT_STRATEGY": "clone", "GIT_CLEAN_FLAGS": "none"})
    assert ended.end == SUCCESS
    assert "left-behind" not in ended.lines
    assert ended.has("Created fresh repository")


def test_the_empty_strategy_has_an_empty_directory_and_none_leaves_it_as_it_is(place):
    source = commit(place, "group/none", README="one\n")
    place.run("touch kept", git=source)
    none = place.run("ls -A", git=source, variables={"GIT_STRATEGY": "none"})
    assert {"kept", "README"} <= set(none.lines)
    empty = place.run("ls -A | wc -l", git=source, variables={"GIT_STRATEGY": "empty"})
    assert empty.end == SUCCESS
    assert "0" in empty.lines


def test_a_working_copy_that_a_job_broke_is_mended(place):
    source = commit(place, "group/broken", README="one\n")
    place.run(
        "touch .git/index.lock .git/shallow.lock", "echo '#!/bin/sh\nexit 9' > .git/hooks/post-checkout", git=source
    )
    ended = place.run("cat README", git=source)
    assert ended.end == SUCCESS
    assert "one" in ended.lines


def test_tags_depth_and_checkout(place):
    commit(place, "group/tags", README="old\n")
    tagged = place.gitlab.commit("group/tags", {"README": "tagged\n"}, tag="v1.0")
    ended = place.run("cat README", "git log --oneline | wc -l", git=tagged)
    assert ended.end == SUCCESS
    assert "tagged" in ended.lines
    kept = place.run("git rev-parse HEAD", git=tagged, variables={"GIT_CHECKOUT": "false"})
    assert kept.end == SUCCESS
    assert kept.has("Skipping Git checkout")


@pytest.mark.parametrize(("strategy", "has_nested"), [("none", False), ("normal", False), ("recursive", True)])
def test_submodules(place, strategy, has_nested):
    root = f"group/sub-{strategy}"
    nested = place.gitlab.commit(f"{root}-nested", {"file": "nested\n"})
    inner = place.gitlab.commit(
        f"{root}-inner",
        {"file": "inner\n"},
        submodules={"nested": (f"{place.gitlab.url}/{root}-nested.git", nested.sha)},
    )
    outer = place.gitlab.commit(
        root, {"file": "outer\n"}, submodules={"inner": (f"{place.gitlab.url}/{root}-inner.git", inner.sha)}
    )
    ended = place.run(
        "cat file; cat inner/file inner/nested/file 2>/dev/null || true",
        'grep -r "$CI_JOB_TOKEN" .git && echo leaked || echo clean',
        git=outer,
        variables={"GIT_SUBMODULE_STRATEGY": strategy},
    )
    assert ended.end == SUCCESS
    assert {"outer", "clean"} <= set(ended.lines)
    assert ("inner" in ended.lines) == (strategy != "none")
    assert ("nested" in ended.lines) == has_nested
    again = place.run("cat file", git=outer, variables={"GIT_SUBMODULE_STRATEGY": strategy})
    assert again.end == SUCCESS


def test_sources_that_fail_are_tried_again_as_often_as_the_job_says(place):
    source = commit(place, "group/shaky", README="hello\n")
    fault = place.gitlab.add_fault("status", "git", status=500, count=1)
    ended = place.run("cat README", git=source, variables={"GET_SOURCES_ATTEMPTS": "3"}, within=90)
    assert place.gitlab.fault_struck(fault) == 1
    assert ended.end == SUCCESS
    assert "hello" in ended.lines


def test_sources_that_cannot_be_had_fail_the_job_before_its_script(place):
    source = commit(place, "group/gone", README="hello\n")
    fault = place.gitlab.add_fault("status", "git", status=404, count=None)
    ended = place.run("echo never", git=source, after_script=["echo after"])
    place.gitlab.lift_fault(fault)
    assert ended.end[:2] == ("failed", "script_failure")
    assert not {"never", "after"} & set(ended.lines)
    assert place.run("cat README", git=source).end == SUCCESS
