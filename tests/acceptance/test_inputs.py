"""A job's inputs, from the payload through the real manager to a real script."""

from __future__ import annotations

import secrets

import pytest

from tests.acceptance.standing import standing

SUCCESS = ("success", "", 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("inputs") / "m", warm=1) as made:
        yield made


def given(key, content, kind="string", **more):
    return {"key": key, "value": {"type": kind, "content": content, "sensitive": False} | more}


def test_inputs_of_every_type_reach_the_scripts(place):
    ended = place.run(
        'echo "to ${{ job.inputs.target }} times ${{ job.inputs.count }}: ${{ job.inputs.loud }}"',
        "echo '${{ job.inputs.tags }} ${{ job.inputs.tags[1] }} ${{ job.inputs.place.street }}'",
        'echo ${{ job.inputs.loud && "-v" || "-q" }} ${{ str(job.inputs.count + 1) }}',
        after_script=['echo "after ${{ job.inputs.target }}"'],
        inputs=[
            given("target", "staging"),
            given("count", 3, "number"),
            given("loud", True, "boolean"),
            given("tags", ["a", "b"], "array"),
            given("place", {"street": "Way 42"}, "struct"),
        ],
    )
    assert ended.end == SUCCESS
    assert {"to staging times 3: true", '["a","b"] b Way 42', "-v 4", "after staging"} <= set(ended.lines)


def test_variables_and_hooks_keep_their_braces_and_an_escape_is_one(place):
    text = "${{ job.inputs.a }}"
    ended = place.run(
        'echo "variable $TEXT"',
        r"echo 'escaped \${{ job.inputs.a }}'",
        inputs=[given("a", "word")],
        variables=[{"key": "TEXT", "value": text, "raw": True}],
    )
    assert ended.end == SUCCESS
    assert {f"variable {text}", f"escaped {text}"} <= set(ended.lines)


def test_an_input_that_a_shell_would_run_is_text_of_the_script_as_on_gitlab_runner(place):
    ended = place.run("echo ${{ job.inputs.a }}", inputs=[given("a", "$(echo ran)")])
    assert "ran" in ended.lines


@pytest.mark.parametrize(
    ("line", "place_of_it", "why"),
    [
        ("echo ${{ job.inputs.nowhere }}", "script, command 1", "there is no input 'nowhere'; there are: a"),
        ("echo ${{ job.inputs.a | expand_vars }}", "script, command 1", "expected }} here"),
        ("echo ${{ upper(job.inputs.a) }}", "script, command 1", "there is no function upper"),
        ("echo ${{ job.inputs.a", "script, command 1", "expected }} here"),
    ],
)
def test_what_cannot_be_filled_in_fails_the_job_before_it_begins(place, line, place_of_it, why):
    ended = place.run(line, inputs=[given("a", "x")])
    assert ended.end == ("failed", "runner_configuration_error", 0)
    assert ended.has(place_of_it)
    assert ended.has(why)
    assert not ended.has("Preparing environment")


def test_a_sensitive_input_is_refused_and_shown_nowhere(place):
    word = secrets.token_hex(8)
    ended = place.run("echo ${{ job.inputs.a }}", inputs=[given("a", word, sensitive=True)])
    assert ended.end == ("failed", "runner_configuration_error", 0)
    assert ended.has("input 'a' is sensitive")
    assert word.encode() not in ended.trace
    assert word not in place.manager.log()


def test_the_flag_and_a_job_without_inputs_leave_the_text_alone(place):
    line = "echo '${{ job.inputs.a }}'"
    off = {"FF_ENABLE_JOB_INPUTS_INTERPOLATION": "false"}
    ended = place.run(line, inputs=[given("a", "x")], variables=off)
    assert "${{ job.inputs.a }}" in ended.lines
    ended = place.run(line)
    assert "${{ job.inputs.a }}" in ended.lines
    assert ended.has("speaks of job.inputs, and this job has no inputs")
