"""What we tell GitLab about ourselves, and why a job failed."""

import pytest

from fleet.gitlab.failure_reasons import map_reason
from fleet.gitlab.info import FEATURES, architecture_name, build_info, platform_name


def info(**more):
    return build_info(version="1.0", executor="instance", shell="bash", features={"refspecs"}, **more)


def test_it_promises_exactly_what_is_passed_in():
    features = info()["features"]
    assert [name for name, on in features.items() if on] == ["refspecs"]
    assert set(features) == set(FEATURES)


def test_no_text_that_gitlab_looks_at_is_empty():
    found = info()
    assert all(found[name] for name in ("name", "version", "revision", "platform", "architecture", "executor", "shell"))


def test_a_misspelt_feature_is_noticed():
    with pytest.raises(ValueError, match="refspec"):
        build_info(version="1", executor="x", shell="bash", features={"refspec"})


def test_labels_and_gpus_go_with_it():
    found = info(labels={"zone": "a"}, gpus="all")
    assert found["labels"] == {"zone": "a"}
    assert found["config"] == {"gpus": "all"}


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "amd64"),
        ("AMD64", "amd64"),
        ("aarch64", "arm64"),
        ("armv7l", "arm"),
        ("i686", "386"),
        ("s390x", "s390x"),
    ],
)
def test_processors_are_named_as_in_go(machine, name):
    assert architecture_name(machine) == name


@pytest.mark.parametrize(
    ("system", "name"), [("linux", "linux"), ("darwin", "darwin"), ("win32", "windows"), ("freebsd14", "freebsd")]
)
def test_systems_are_named_as_in_go(system, name):
    assert platform_name(system) == name


@pytest.mark.parametrize(
    ("reason", "supported", "sent"),
    [
        (None, [], "script_failure"),
        ("", [], "script_failure"),
        ("runner_system_failure", [], "runner_system_failure"),
        ("job_execution_timeout", [], "job_execution_timeout"),
        ("image_pull_failure", [], "runner_system_failure"),
        ("image_pull_failure", ["image_pull_failure"], "image_pull_failure"),
        ("runner_configuration_error", [], "script_failure"),
        ("runner_external_dependency_failure", [], "runner_system_failure"),
        ("runner_interrupted", [], "unknown_failure"),
        ("runner_interrupted", ["runner_interrupted"], "runner_interrupted"),
        ("job_canceled", ["image_pull_failure"], "unknown_failure"),
        ("something_new", [], "unknown_failure"),
    ],
)
def test_a_reason_is_said_in_words_this_server_knows(reason, supported, sent):
    assert map_reason(reason, supported) == sent
