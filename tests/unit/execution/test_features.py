"""What GitLab is told that we can do is what a test shows that we can do."""

from __future__ import annotations

import pathlib

import pytest

from fleet.execution import features
from fleet.execution.features import features_of
from fleet.gitlab.info import FEATURES

ROOT = pathlib.Path(__file__).resolve().parents[3]
EXECUTORS = ("instance", "shell", "ssh", "docker", "docker-autoscaler", "docker-ssh")
PIPELINES = "tests/acceptance/pipelines"
REPORTS = "tests/acceptance/test_gitlab_reports.py"
SHOWN_BY = {
    "trace_reset": f"{REPORTS}::test_412_is_answered_with_the_whole_trace",
    "trace_checksum": f"{REPORTS}::test_412_is_answered_with_the_whole_trace",
    "trace_size": f"{REPORTS}::test_202_on_the_final_update_is_repeated_until_the_trace_is_stored",
    "cancelable": "tests/acceptance/test_cancel.py::test_an_abort_ends_everything_and_nothing_more_is_said",
    "cancel_gracefully": (
        "tests/acceptance/test_cancel.py::test_a_cancel_in_the_script_ends_it_and_after_script_runs_and_knows"
    ),
    "two_phase_job_commit": f"{REPORTS}::test_an_acknowledgement_that_finds_no_job_drops_it",
    "variables": f"{PIPELINES}/variables.py::variable-",
    "raw_variables": "tests/acceptance/test_payload_scripts.py::test_expansion_raw_and_file_variables",
    "refspecs": f"{PIPELINES}/sources.py::source-fetch",
    "masking": f"{PIPELINES}/variables.py::mask-value",
    "multi_build_steps": f"{PIPELINES}/scripts.py::script-steps",
    "return_exit_code": (
        "tests/acceptance/test_payload_rest.py::test_the_exit_code_that_allow_failure_goes_by_is_sent"
    ),
    "vault_secrets": (
        "tests/acceptance/test_secrets.py::test_a_secret_is_a_masked_file_and_overrides_the_jobs_variable"
    ),
    "job_inputs": "tests/acceptance/test_inputs.py::test_inputs_of_every_type_reach_the_scripts",
    "artifacts": "tests/acceptance/test_artifacts.py::test_what_one_job_makes_the_next_one_has",
    "upload_multiple_artifacts": f"{PIPELINES}/artifacts.py::artifact-several",
    "upload_raw_artifacts": "tests/acceptance/test_artifacts.py::test_reports_of_all_formats_arrive",
    "artifacts_exclude": "tests/acceptance/test_artifacts.py::test_what_one_job_makes_the_next_one_has",
    "cache": "tests/acceptance/test_cache.py::test_without_a_store_the_next_job_on_the_machine_finds_it",
    "fallback_cache_keys": f"{PIPELINES}/caches.py::cache-fallback",
    "image": f"{PIPELINES}/containers.py::image-own",
    "image_executor_opts": f"{PIPELINES}/containers.py::image-platform",
    "services": f"{PIPELINES}/services.py::service-image-name",
    "service_variables": f"{PIPELINES}/services.py::service-variables",
    "service_multiple_aliases": f"{PIPELINES}/services.py::service-aliases",
    "service_executor_opts": f"{PIPELINES}/services.py::service-option",
    "session": "tests/acceptance/test_terminal_session.py::test_a_person_types_into_a_running_job",
    "terminal": "tests/acceptance/test_terminal_session.py::test_a_person_types_into_a_running_job",
    "shared": "tests/acceptance/test_one_job.py::test_a_job_runs_on_a_machine_and_gitlab_hears_of_it",
}
NOT_BUILT = {"native_steps_integration", "proxy"}


def advertised() -> set[str]:
    return {name for executor in EXECUTORS for name in features_of(executor, terminals=True)}


def test_every_feature_that_is_advertised_is_shown_by_a_test() -> None:
    assert advertised() - set(SHOWN_BY) == set()


@pytest.mark.parametrize("name", sorted(SHOWN_BY))
def test_the_test_that_shows_a_feature_is_there(name: str) -> None:
    path, _, what = SHOWN_BY[name].partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {what}(" in text if what.startswith("test_") else f'"{what}' in text


def test_gitlab_knows_every_word_and_what_is_not_built_is_not_advertised() -> None:
    assert set(SHOWN_BY) | NOT_BUILT == set(FEATURES)
    assert not advertised() & NOT_BUILT


def test_every_set_of_the_module_is_advertised_by_some_executor() -> None:
    sets = [value for name, value in vars(features).items() if name.isupper() and not name.endswith("EXECUTORS")]
    assert sets
    assert set().union(*sets) <= advertised()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_each_executor_says_what_it_can(executor: str) -> None:
    has_containers = executor.startswith("docker")
    assert bool(features_of(executor) & {"image", "services"}) is has_containers
    assert {"vault_secrets", "job_inputs", "artifacts", "return_exit_code"} <= features_of(executor)
    assert not features_of(executor) & {"session", "terminal"}


def test_an_executor_that_nobody_knows_promises_nothing() -> None:
    assert features_of("kubernetes") == frozenset()
