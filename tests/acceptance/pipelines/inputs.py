"""Inputs of a job: `${{ job.inputs.name }}` in its texts."""

from __future__ import annotations

from typing import Any

from tests.acceptance.pipelines.case import DOCKER, Case, Job, case, failed

BROKEN: dict[str, Any] = {"state": "failed", "reason": "runner_configuration_error", "lacks": ["\n$ "]}


def given(kind: str, content: Any, key: str = "it", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"key": key, "value": {"type": kind, "content": content, "sensitive": False, **more}}]}


CASES: tuple[Case, ...] = (
    case("input-script", "3", "inputs are put into script and after_script", Job(
        script=["echo got ${{ job.inputs.it }}"], after=["echo after ${{job.inputs.it}}"],
        more=given("string", "a word"), lines=["got a word", "after a word"])),
    case("input-types", "3", "numbers and booleans are written as such", Job(
        script=["echo ${{ job.inputs.number }} ${{ job.inputs.flag }}"],
        more={"inputs": given("number", 3, "number")["inputs"] + given("boolean", True, "flag")["inputs"]},
        lines=["3 true"])),
    case("input-none", "3", "a job without inputs keeps its braces", Job(
        script=["echo '${{ job.inputs.it }}'"], lines=["${{ job.inputs.it }}"])),
    case("input-variables", "3", "variables are not filled", Job(
        script=['echo "<$TEXT>"'], variables=[{"key": "TEXT", "value": "${{ job.inputs.it }}", "raw": True}],
        more=given("string", "word"), lines=["<${{ job.inputs.it }}>"])),
    case("input-unknown", "3", "an input that is not there fails the job as misconfigured", Job(
        **BROKEN, script=["echo ${{ job.inputs.other }}"], more=given("string", "word"))),
    case("input-type", "3", "so does one that is not of its type", Job(
        **BROKEN, script=["echo ${{ job.inputs.it }}"], more=given("number", "word"))),
    case("input-sensitive", "3", "sensitive inputs may not be put into texts", Job(
        **BROKEN, script=["echo ${{ job.inputs.it }}"], more=given("string", "word", sensitive=True),
        has=["sensitive"])),
    case("input-off", "3", "FF_ENABLE_JOB_INPUTS_INTERPOLATION=false leaves the texts as they are", Job(
        script=["echo '${{ job.inputs.it }}'"], variables={"FF_ENABLE_JOB_INPUTS_INTERPOLATION": "false"},
        more=given("string", "word"), lines=["${{ job.inputs.it }}"])),
    case("input-image", "3", "inputs are put into image and services", Job(
        script=["echo in busybox; busybox | grep BusyBox"], more={"image": "${{ job.inputs.it }}"} | given(
            "string", "@image/busy@"), has=["BusyBox v"]), on=(DOCKER,)),
    case("input-exit", "3", "a filled command may fail as any other", failed(
        5, script=["exit ${{ job.inputs.it }}"], more=given("number", 5))),
)  # fmt: skip
