"""What else a payload may say: releases, exit codes, sections of commands, policies, environments to keep."""

from __future__ import annotations

import pytest

from tests.acceptance.standing import standing

SUCCESS = ("success", "", 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("rest") / "m", warm=1) as made:
        yield made


def variable(key, value, **more):
    return {"key": key, "value": value, "public": True} | more


def steps(*named):
    return [
        {"name": name, "script": list(script), "timeout": 3600, "when": "on_success", "allow_failure": False}
        for name, *script in named
    ]


def test_a_release_runs_behind_the_script_with_its_variables_put_in(place):
    """GitLab writes the release's line itself, in quotes that no shell expands."""
    ended = place.run(
        steps=steps(("script", "echo built"), ("release", "echo 'release-cli create --name $NAME --ref \"${REF}\"'")),
        variables=[variable("NAME", "v1 final"), variable("REF", "main")],
    )
    assert ended.end == SUCCESS
    assert ended.lines.index("built") < ended.lines.index('release-cli create --name v1 final --ref "main"')
    assert ended.has('Executing "step_release" stage of the job script')


def test_a_release_is_not_made_when_the_script_fails(place):
    ended = place.run(steps=steps(("script", "exit 4"), ("release", "echo never")))
    assert ended.end == ("failed", "script_failure", 4)
    assert "never" not in ended.lines


@pytest.mark.parametrize("code", [1, 2, 42, 137, 255])
def test_the_exit_code_that_allow_failure_goes_by_is_sent(place, code):
    ended = place.run("echo before", f"exit {code}", allow_failure=True)
    assert ended.end == ("failed", "script_failure", code)


def test_an_exit_code_of_a_program_and_of_a_pipe_is_the_jobs(place):
    assert place.run("sh -c 'exit 17'").view.exit_code == 17
    assert place.run("sh -c 'exit 19' | cat").view.exit_code == 19


def test_commands_of_several_lines_are_sections_where_the_flag_says_so(place):
    command = "echo first\necho second"
    ended = place.run(command, variables={"FF_SCRIPT_SECTIONS": "true"})
    assert ended.end == SUCCESS
    assert b":section_script_step_0[hide_duration=true,collapsed=true]\r" in ended.trace
    assert ended.trace.count(b":section_script_step_0\r") == 1
    plain = place.run(command)
    assert plain.has("$ echo first # collapsed multi-line command")
    assert b"section_script_step" not in plain.trace


@pytest.mark.parametrize(
    ("script", "more", "status"),
    [
        ("true", {}, "success"),
        ("exit 3", {}, "failed"),
        ("sleep 60", {"variables": {"RUNNER_SCRIPT_TIMEOUT": "1s"}}, "timedout"),
    ],
)
def test_after_script_knows_how_the_script_ended(place, script, more, status):
    ended = place.run("echo script $CI_JOB_STATUS", script, after_script=["echo after $CI_JOB_STATUS"], **more)
    assert {"script running", f"after {status}"} <= set(ended.lines)


def test_after_script_of_a_canceled_job_knows_it(place):
    job = place.enqueue("echo begun", "sleep 60", after_script=["echo after $CI_JOB_STATUS"])
    place.gitlab.wait_for_trace(job, "begun", timeout=60)
    place.gitlab.cancel(job)
    ended = place.ended(job)
    assert ended.view.state == "canceled"
    assert "after canceled" in ended.lines


POLICY = {"execution_policy_job": True, "policy_name": "Scan all"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (POLICY, "The policy's variables beat those of the same name"),
        (
            POLICY | {"policy_variables_override_allowed": True},
            "User-defined CI/CD variables are allowed in this job acc",
        ),
        (
            POLICY
            | {"policy_variables_override_allowed": False, "policy_variables_override_exceptions": ["ONE", "TWO"]},
            "User-defined CI/CD variables are ignored in this job (except for ONE, TWO) according to",
        ),
    ],
)
def test_a_job_of_a_policy_says_so(place, options, says):
    ended = place.run("echo fine", policy_options=options)
    assert ended.end == SUCCESS
    assert 'Job triggered by policy "Scan all".' in ended.lines
    assert ended.has(says)


def test_a_job_without_a_policy_says_nothing_of_one(place):
    ended = place.run("echo fine", policy_options={"execution_policy_job": False, "policy_name": "x"})
    assert not ended.has("policy")


@pytest.mark.parametrize("options", [
    {"suspend_on_success": True}, {"suspend_on_failure": True}, {"runtime_environment_key": "7/s_1/acquisition-key=a"},
])  # fmt: skip
def test_an_environment_is_never_kept_and_the_job_is_told(place, options):
    ended = place.run("echo fine", suspend_options=options)
    assert ended.end == SUCCESS
    assert ended.has("this runner starts and ends each job anew")


@pytest.mark.parametrize(("payload", "names"), [
    ({"run": '[{"name": "a", "script": "echo a"}]', "steps": []}, "run (native steps)"),
    ({"run": '[{"name": "a", "script": "echo a"}]'}, "run (native steps)"),
    ({"image": {"name": "a", "executor_opts": {"docker": {"gpus": "all"}}}}, "image: docker: gpus"),
    ({"image": {"name": "a", "executor_opts": {"vmware": {}}}}, "image: vmware"),
    ({"services": [{"name": "db", "executor_opts": {"kubernetes": {"node": "x"}}}]}, "services:db: kubernetes: node"),
])  # fmt: skip
def test_options_that_nobody_knows_are_refused_by_name_with_exit_code_3(place, payload, names):
    ended = place.run("echo never", **payload)
    assert ended.end == ("failed", "runner_system_failure", 3)
    assert ended.has(f"does not support: {names}")


def test_known_options_of_executors_are_taken(place):
    options = {"docker": {"platform": "linux/amd64", "user": 1000}, "kubernetes": {"user": "1000:1000"}}
    assert place.run("echo fine", image={"name": "a", "executor_opts": options}).end == SUCCESS
