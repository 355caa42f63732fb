"""What a job in a pipeline cannot show, and the tests that do: lost machines and engines, clouds, sizes, terminals."""

from __future__ import annotations

from tests.acceptance.pipelines.case import BOTH, DOCKER, INSTANCE, Case, case, everywhere

A = "tests/acceptance"
C = "tests/contract"


def shown(name: str, section: str, title: str, proof: str, *, on: tuple[str, ...] = BOTH) -> Case:
    return case(name, section, title, proof=proof, on=on)


CASES: tuple[Case, ...] = (
    shown("killed-manager", "1.6", "a job goes on while its manager is away, and is told when there is one again",
          f"{A}/test_one_job.py::test_law_4_a_job_survives_kill_9_in_the_middle_of_its_script"),
    shown("killed-manager-container", "1.6", "so does one in a container, with its services",
          f"{A}/test_containers_faults.py::test_law_4_a_container_job_with_a_service_survives_kill_9_of_the_manager",
          on=(DOCKER,)),
    shown("cancel-waiting", "1.7", "a job that is canceled while it waits for a machine gets none",
          f"{A}/test_cancel.py::test_a_job_canceled_while_it_waits_for_a_machine_gets_none"),
    shown("cancel-sources", "1.7", "a cancel while the sources come runs no script",
          f"{A}/test_cancel.py::test_a_cancel_in_get_sources_runs_no_script"),
    shown("shell-executor", "1.12", "`shell` runs jobs on this host, `ssh` on a given one",
          f"{A}/test_executors.py::test_ssh_runs_on_a_given_host", on=(INSTANCE,)),
    shown("engine-restarted", "1.13", "an engine that is restarted under a job fails it as a failure of the system",
          f"{A}/test_containers_faults.py::test_an_engine_that_is_restarted_fails_the_job_as_ours", on=(DOCKER,)),
    shown("engine-away", "1.13", "so does one that is away",
          f"{A}/test_containers_faults.py::test_an_engine_that_is_away_fails_the_job_as_ours_and_says_so",
          on=(DOCKER,)),
    shown("container-canceled", "1.13", "a canceled job ends all processes of its container, and nothing is left",
          f"{A}/test_containers_faults.py::"
          "test_a_canceled_job_ends_its_processes_runs_after_script_and_leaves_nothing", on=(DOCKER,)),
    shown("container-timeout", "1.13", "so does one that is out of time",
          f"{A}/test_containers_faults.py::test_a_job_out_of_time_is_stopped_with_all_its_processes", on=(DOCKER,)),
    shown("volumes-tidied", "1.13", "kept volumes make room when the disk fills, those used least lately first",
          f"{C}/agent/test_tidy_engine.py::"
          "test_the_volume_used_least_lately_goes_first_and_no_more_than_is_needed", on=(DOCKER,)),
    shown("cache-s3", "1.14", "caches lie in S3, and the machine gets signed addresses alone",
          f"{A}/test_cache.py::"
          "test_a_cache_goes_from_machine_to_machine_through_s3_and_the_keys_of_the_bucket_stay_at_home"),
    shown("cache-s3-role", "1.14", "a role is assumed for it where one is set",
          f"{C}/clouds/test_cache_stores.py::test_a_role_is_assumed_once_and_ends_its_addresses"),
    shown("cache-gcs", "1.14", "or in Google Cloud Storage",
          f"{C}/clouds/test_cache_stores.py::test_cloud_storage_addresses_work_as_they_are"),
    shown("cache-azure", "1.14", "or in Azure Blob Storage",
          f"{C}/clouds/test_cache_stores.py::test_blob_storage_addresses_work_as_they_are"),
    shown("cache-long-job", "1.14", "a job that outlives its addresses asks for fresh ones",
          f"{A}/test_cache.py::test_a_job_asks_for_an_address_when_the_credentials_end_before_it"),
    shown("cache-size", "1.14", "an archive beyond MaxUploadedArchiveSize is not uploaded",
          f"{A}/test_cache.py::test_an_archive_that_is_too_large_stays_on_the_machine"),
    shown("cache-corrupted", "1.14", "a damaged archive is told and costs no job its success",
          f"{A}/test_cache.py::test_a_corrupted_object_is_told_and_removed_and_the_job_goes_on"),
    shown("cache-store-away", "1.14", "neither does a store that is away",
          f"{A}/test_cache.py::test_a_store_that_is_away_costs_no_job_its_success"),
    shown("cache-at-once", "1.14", "two jobs with one key at once see whole archives",
          f"{A}/test_cache.py::test_two_jobs_with_one_key_on_one_machine_at_once_see_whole_archives"),
    shown("cache-naming", "1.14", "names of objects are GitLab Runner's, with Path, Shared and hashed keys",
          "tests/unit/execution/test_caches.py::test_path_and_shared_make_the_prefix"),
    shown("artifact-many", "1.15", "a hundred thousand files are uploaded",
          f"{A}/test_artifacts.py::test_a_hundred_thousand_files"),
    shown("artifact-large", "1.15", "two gigabytes go up and down in flat memory",
          f"{A}/test_artifacts.py::test_two_gigabytes_go_up_and_down_in_flat_memory"),
    shown("upload-redirected", "1.15", "307 names the server to upload to",
          f"{C}/artifacts/test_upload.py::test_307_names_another_server"),
    shown("upload-tries", "1.15", "each answer is tried as often as GitLab Runner does",
          f"{C}/artifacts/test_upload.py::test_each_answer_is_tried_as_often_as_it_should_be"),
    shown("upload-progress", "1.15", "TRANSFER_METER_FREQUENCY shows progress",
          f"{C}/artifacts/test_upload.py::test_progress_is_told_when_it_is_wanted"),
    shown("download-evil", "1.15", "archives that lead out of the project harm nothing",
          f"{C}/artifacts/test_download.py::test_an_evil_archive_harms_nothing"),
    shown("download-storage", "1.15", "a direct download that fails goes through GitLab",
          f"{C}/artifacts/test_download.py::test_storage_that_fails_is_gone_round"),
    shown("terminal", "3", "GitLab opens an interactive terminal beside a running job",
          f"{A}/test_terminal_session.py::test_a_person_types_into_a_running_job"),
    shown("terminal-waits", "3", "the job waits for an open terminal, for session_timeout at most",
          f"{A}/test_terminal_session.py::test_a_job_waits_no_longer_than_session_timeout"),
    case("referees", "1.6", "referees upload metrics of the job", not_yet=everywhere(
        "GitLab Runner's own executors here give them no metrics either")),
    case("native-steps", "3", "native steps run", not_yet=everywhere("refused: not advertised, GitLab sends none")),
)  # fmt: skip
