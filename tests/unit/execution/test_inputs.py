from __future__ import annotations

from typing import Any

import pytest

from fleet.execution.inputs import filled
from fleet.execution.refused import JobRefused
from fleet.gitlab.errors import PayloadError
from fleet.gitlab.failure_reasons import FailureReason
from fleet.gitlab.payload import JobPayload
from tests.contract.execution.job_inputs import payload_of, render_with, stage_named

OF_TYPE = {"string": "text", "number": 3, "boolean": True, "array": ["a", 1], "struct": {"x": {"y": "deep"}}}
HELLO = "${{ job.inputs.string }}"


def given(content: Any, kind: str = "string", key: str = "a", **value: Any) -> dict[str, Any]:
    return {"key": key, "value": {"type": kind, "content": content} | value}


def payload_with(**changes: Any) -> JobPayload:
    listed = [given(content, kind, kind) for kind, content in OF_TYPE.items()]
    return payload_of(**({"inputs": listed} | changes))


def refusal(**changes: Any) -> JobRefused:
    with pytest.raises(JobRefused) as refused:
        filled(payload_with(**changes), is_on=True)
    assert refused.value.reason is FailureReason.RUNNER_CONFIGURATION_ERROR
    return refused.value


def test_every_type_goes_into_a_script() -> None:
    line = "echo ${{ job.inputs.string }} ${{ job.inputs.number }} ${{ job.inputs.boolean }} '${{ job.inputs.array }}'"
    found, warnings = filled(payload_with(script=[line, "${{ job.inputs.struct.x.y }}"]), is_on=True)
    assert found.steps[0].script == ("echo text 3 true '[\"a\",1]'", "deep")
    assert warnings == []


def test_exactly_gitlabs_fields_are_filled() -> None:
    image = {
        "name": HELLO, "alias": HELLO, "command": [HELLO], "entrypoint": [HELLO], "pull_policy": [HELLO],
        "executor_opts": {"docker": {"platform": HELLO, "user": 7}}, "variables": [{"key": "A", "value": HELLO}],
    }  # fmt: skip
    before = payload_with(
        steps=[{"name": name, "script": [HELLO]} for name in ("script", "after_script", "release")],
        image=image,
        services=[image],
        artifacts=[dict.fromkeys(("name", "when", "expire_in", "artifact_type"), HELLO) | {"paths": [HELLO]}],
        cache=[dict.fromkeys(("key", "policy", "when"), HELLO) | {"paths": [HELLO], "fallback_keys": [HELLO]}],
        variables={"A": HELLO},
        hooks=[{"name": "pre_get_sources_script", "script": [HELLO]}],
    )
    found, _ = filled(before, is_on=True)
    assert [step.script for step in found.steps] == [("text",), ("text",), (HELLO,)]
    for part in (found.image, found.services[0]):
        assert (part.name, part.command, part.entrypoint, part.pull_policy) == ("text", ("text",), ("text",), ("text",))
        assert part.executor_opts == {"docker": {"platform": "text", "user": 7}}
        assert (part.alias, part.variables[0].value) == (HELLO, HELLO)
    artifact, cache = found.artifacts[0], found.cache[0]
    assert (artifact.name, artifact.paths, artifact.when, artifact.expire_in) == ("text", ("text",), "text", "text")
    assert artifact.artifact_type == HELLO
    assert (cache.key, cache.policy, cache.paths, cache.when) == ("text", "text", ("text",), "text")
    assert cache.fallback_keys == ("text",)
    assert (found.variables, found.hooks) == (before.variables, before.hooks)


def test_without_inputs_every_text_stays_and_the_log_says_so() -> None:
    payload = payload_of(script=["echo ${{ job.inputs.a }} ${{ 1 + }}"])
    found, warnings = filled(payload, is_on=True)
    assert found is payload
    assert warnings == [
        "script, command 1 speaks of job.inputs, and this job has no inputs: its texts stay as they are"
    ]
    assert filled(payload_of(script=["echo ${{ 1 + 2 }}"]), is_on=True)[1] == []


def test_the_feature_flag_turns_it_off() -> None:
    off = {"FF_ENABLE_JOB_INPUTS_INTERPOLATION": "false"}
    rendered = render_with(payload_with(script=[f"echo {HELLO}"], variables=off))
    assert HELLO in stage_named(rendered, "step_script")["script"]
    assert "text" in stage_named(render_with(payload_with(script=[f"echo {HELLO}"])), "step_script")["script"]


@pytest.mark.parametrize(
    ("changes", "place", "why"),
    [
        ({"script": ["true", "echo ${{ job.inputs.unknown }}"]}, "script, command 2", "there is no input 'unknown'"),
        ({"script": ["${{ 1 + }}"]}, "script, command 1", "expected a value here (character 9)"),
        ({"after_script": ["${{"]}, "after_script, command 1", "expected a value"),
        ({"image": {"name": "${{ x }}"}}, "image.name", "x is not known here"),
        ({"services": [{}, {"command": ["a", "${{ x }}"]}]}, "services[1].command[1]", "x is not known"),
        ({"cache": [{"paths": ["${{ x }}"]}]}, "cache[0].paths[0]", "x is not known"),
        ({"image": {"executor_opts": {"docker": {"user": "${{ x }}"}}}}, "image.executor_opts.docker.user", "x is not"),
    ],
)
def test_what_cannot_be_filled_is_refused_with_its_place(changes: dict[str, Any], place: str, why: str) -> None:
    message = refusal(**changes).message
    assert message.startswith(f"{place}: ")
    assert why in message
    assert r"\${{" in message


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        (given("x", "date"), "is of type 'date'"),
        (given("x", "number"), "is announced as number and is something else"),
        (given(True, "number"), "is announced as number"),
        (given(1, "boolean"), "is announced as boolean"),
        (given(["x"], "struct"), "is announced as struct"),
        (given("x", key=""), "has no key"),
    ],
)
def test_an_input_that_is_not_what_it_says_is_refused(listed: dict[str, Any], why: str) -> None:
    assert why in refusal(inputs=[listed]).message


@pytest.mark.parametrize("value", [{"type": "string"}, {"type": "string", "content": None}, {"content": "x"}])
def test_an_input_without_type_or_content_makes_the_payload_unreadable(value: dict[str, Any]) -> None:
    raw = payload_of().model_dump_json()
    broken = raw.replace('"inputs":[]', f'"inputs":[{{"key":"a","value":{str(value).replace("None", "null")}}}]')
    with pytest.raises(PayloadError):
        JobPayload.parse(broken.replace("'", '"').encode())


def test_a_sensitive_input_is_refused_and_its_value_never_told() -> None:
    message = refusal(inputs=[given("hunter2", sensitive=True)], script=["echo ${{ job.inputs.a }}"]).message
    assert "script, command 1: input 'a' is sensitive" in message
    assert "hunter2" not in message


def test_inputs_that_would_grow_beyond_all_bounds_are_refused() -> None:
    many = [f"echo {'${{ job.inputs.a }}' * 70}"]
    assert "larger than 64 MiB" in refusal(inputs=[given("x" * (1 << 20))], script=many).message


def test_what_no_shell_can_hold_does_not_come_in_by_an_expression() -> None:
    found, _ = filled(payload_with(script=[r'echo a${{ "\u0000\ud800" }}b']), is_on=True)
    assert found.steps[0].script == ("echo a\ufffdb",)
