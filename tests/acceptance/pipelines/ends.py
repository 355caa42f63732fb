"""Time limits, cancel, exit codes, retries, and what is refused."""

from __future__ import annotations

from typing import Any

from tests.acceptance.pipelines.case import DOCKER, INSTANCE, Case, Job, case, everywhere, failed, step

SLEEP = "sleep 300 & wait"
TIMED_OUT: dict[str, Any] = {"state": "failed", "reason": "job_execution_timeout"}
REFUSED: dict[str, Any] = {"state": "failed", "reason": "runner_system_failure", "exit_code": 3}


def cancel(world: Any, job: int) -> None:
    world.gitlab.wait_for_trace(job, "O begun", timeout=120)
    world.gitlab.cancel(job)


def force(world: Any, job: int) -> None:
    world.gitlab.wait_for_trace(job, "O begun", timeout=120)
    world.gitlab.cancel(job, force=True)


def erase(world: Any, job: int) -> None:
    world.gitlab.wait_for_trace(job, "O begun", timeout=120)
    world.gitlab.drop(job)


CASES: tuple[Case, ...] = (
    case("end-success", "1.6", "a job whose script ends well succeeds", Job(lines=["hello"], has=["Job succeeded"])),
    case("end-acknowledged", "1.6", "a job is acknowledged before anything else is told of it", Job(
        calls=("assigned", "acknowledged", "first_trace", "final", "ended"))),
    case("end-touch", "1.6", "a cancel is heard while a job is silent",
         proof="tests/acceptance/test_cancel.py::test_a_cancel_in_the_script_ends_it_and_after_script_runs_and_knows"),
    case("timeout-job", "1.7", "the job's time limit ends it, without after_script", Job(
        **TIMED_OUT, script=["echo begun", "sleep 300"], after=["echo never"], more={"timeout": 20}, lines=["begun"],
        lacks=["\nnever"], has=["execution took longer than 20s"])),
    case("timeout-zero", "1.7", "a limit of zero is two hours", Job(
        script=["echo limit $CI_JOB_TIMEOUT"], more={"timeout": 0}, lines=["limit 7200"])),
    case("timeout-script", "1.7", "RUNNER_SCRIPT_TIMEOUT leaves room for after_script, which sees `timedout`", Job(
        **TIMED_OUT, script=["echo begun", "sleep 300"], after=["echo status $CI_JOB_STATUS"],
        variables={"RUNNER_SCRIPT_TIMEOUT": "15s"}, lines=["begun", "status timedout"])),
    case("timeout-script-all", "1.7", "it covers all steps together", Job(
        **TIMED_OUT, variables={"RUNNER_SCRIPT_TIMEOUT": "20s"},
        more={"steps": [step("script", "sleep 1"), step("second", "echo 2nd", "sleep 300"), step("third", "echo 3rd")]},
        lines=["2nd"], lacks=["\n3rd"])),
    case("timeout-script-long", "1.7", "one beyond the job's limit is said in a warning", Job(
        variables={"RUNNER_SCRIPT_TIMEOUT": "2h"}, has=["RUNNER_SCRIPT_TIMEOUT is '2h', longer than the job's own"])),
    case("timeout-script-bad", "1.7", "one that nobody can read is said and ignored", Job(
        variables={"RUNNER_SCRIPT_TIMEOUT": "soon"}, has=["RUNNER_SCRIPT_TIMEOUT is 'soon'"], lines=["hello"])),
    case("timeout-script-negative", "1.7", "so is a negative one, and zero is none", Job(
        variables={"RUNNER_SCRIPT_TIMEOUT": "-5s", "RUNNER_AFTER_SCRIPT_TIMEOUT": "0"}, after=["echo after"],
        has=["RUNNER_SCRIPT_TIMEOUT is '-5s'"], lines=["hello", "after"])),
    case("timeout-after", "1.7", "RUNNER_AFTER_SCRIPT_TIMEOUT ends after_script and not the job", Job(
        after=["echo after", "sleep 300"], variables={"RUNNER_AFTER_SCRIPT_TIMEOUT": "15s"}, lines=["hello", "after"])),
    case("timeout-prepare", "1.7", "prepare_timeout ends a job that is not prepared in time", not_yet={
        INSTANCE: "a job waits for its machine as long as its own limit", DOCKER: "not shown by a job"}),
    case("cancel-script", "1.7", "a cancel ends the script; after_script sees `canceled`", Job(
        script=["echo begun", SLEEP, "echo never"], after=["echo status $CI_JOB_STATUS"], during=cancel,
        state="canceled", reason="unknown_failure", lines=["begun", "status canceled"], lacks=["\nnever"])),
    case("cancel-force", "1.7", "a forced cancel ends everything", Job(
        script=["echo begun", SLEEP], after=["echo never"], during=force, state="canceled", lines=["begun"],
        lacks=["\nnever"], calls=("acknowledged", "ended canceled"))),
    case("cancel-drop", "1.7", "a job that GitLab has failed is ended, and nothing is told", Job(
        script=["echo begun", SLEEP], during=erase, state="failed", reason="stuck_or_timeout_failure",
        calls=("acknowledged", "ended failed"))),
    case("exit-code", "1.7", "the exit code of the command that failed is told", failed(
        42, script=["exit 42"], has=["exit code 42"])),
    case("exit-255", "1.7", "also 255", failed(255, script=["exit 255"])),
    case("exit-256", "1.7", "and 256 is 0", Job(script=["exit 256"])),
    case("exit-signal", "1.7", "a script ended by a signal fails with 128 and its number", failed(
        137, script=["sh -c 'kill -9 $$'"])),
    case("exit-not-found", "1.7", "a command that is not there is 127", failed(
        127, script=["no-such-command-here"], has=["not found"])),
    case("exit-allowed", "1.7", "the exit code reaches GitLab for `allow_failure: exit_codes`", failed(
        99, script=["exit 99"], more={"allow_failure": True})),
    case("after-ignored", "1.7", "a failure of after_script is ignored", Job(
        after=["echo after", "exit 9"], lines=["after"])),
    case("after-counts", "1.7", "it counts with AFTER_SCRIPT_IGNORE_ERRORS=false", failed(
        9, script=["echo fine"], after=["exit 9"], variables={"AFTER_SCRIPT_IGNORE_ERRORS": "false"})),
    case("after-does-not-hide", "1.7", "but does not hide what failed before", failed(
        3, script=["exit 3"], after=["exit 9"], variables={"AFTER_SCRIPT_IGNORE_ERRORS": "false"})),
    case("retry-clamped", "1.7", "attempts are 1 to 10, and 1 where nobody can read the number", Job(
        variables={"GET_SOURCES_ATTEMPTS": "many", "ARTIFACT_DOWNLOAD_ATTEMPTS": "0"}, lines=["hello"])),
    case("reason-unknown", "1.7", "a reason that this GitLab does not know is sent as one that it knows", Job(
        variables={"GIT_STRATEGY": "magic"}, more={"features": {"trace_sections": True, "failure_reasons": []}},
        state="failed", reason="script_failure")),
    case("lost-machine", "1.6", "a machine that is lost fails the job with runner_system_failure",
         proof="tests/acceptance/test_machine_ends.py::test_a_machine_killed_in_the_middle_of_a_job_fails_it_when_it_is_gone"),
    case("refused-run", "3", "native steps (`run`) are refused with exit code 3", Job(
        **REFUSED, more={"steps": [], "run": '[{"name": "hello", "script": "echo hello"}]'}, lacks=["\nhello"],
        has=["run (native steps)"])),
    case("refused-option", "3", "so are options of an executor that nobody knows", Job(
        **REFUSED, more={"image": {"name": "@image/busy@", "executor_opts": {"docker": {"unheard_of": 1}}}},
        has=["docker: unheard_of"])),
    case("refused-executor", "3", "options of other executors are passed over", Job(
        more={"image": {"name": "@image/full@", "executor_opts": {"kubernetes": {"user": "1"}}}}, lines=["hello"])),
    case("payload-extra", "3", "fields that nobody knows are passed over", Job(
        more={"unheard_of": {"a": [1, None]}, "zz": True}, lines=["hello"])),
    case("payload-null", "3", "null where a list is expected is an empty list", Job(
        more={"services": None, "cache": None, "dependencies": None, "hooks": None, "credentials": None,
              "artifacts": None, "secrets": None, "inputs": None}, lines=["hello"])),
    case("refused-suspend", "3", "suspended environments are not advertised, so GitLab sends none",
         not_yet=everywhere("an experiment of GitLab's; never advertised"), on=(DOCKER,)),
)  # fmt: skip
