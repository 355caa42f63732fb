"""The job files that are written here, run by the agent that is shipped."""

from __future__ import annotations

import json
import os
import pathlib
import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.execution.jobfile import Rendered
from fleet.execution.outcome import outcome_of
from tests.contract.agent.channel import Channel, pack
from tests.contract.execution.conftest import GitServer, Workplace
from tests.contract.execution.job_inputs import payload_of, render_with


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return pack(tmp_path_factory.mktemp("agent") / "agent.pyz")


@pytest.fixture
def channel(agent: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Channel]:
    home = tmp_path / "home"
    home.mkdir()
    found = Channel(agent, home)
    yield found
    found.close()


def run_on(channel: Channel, job_file: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The result and the log, without stamps."""
    lease = f"lease-{secrets.token_hex(6)}"
    body = json.dumps(job_file).encode()
    assert len(body) < 1 << 20
    reply = channel.ask("start", body, lease=lease, epoch=1, remaining_s=120)
    assert reply["ok"], reply
    assert channel.ask("follow", lease=lease, epoch=1, offset=0)["ok"]
    result = channel.exit_of(lease, within_s=60)["result"]
    log = channel.log(lease).decode()
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    return result, re.sub(r"(?m)^\S{27} \w{3}[ +]", "", log)


def rendered_for(channel: Channel, tmp_path: pathlib.Path, **payload: Any) -> Rendered:
    return render_with(payload_of(**payload), tmp_path / "home", login=True)


def test_a_job_runs_through_all_its_stages(channel: Channel, tmp_path: pathlib.Path) -> None:
    secret = secrets.token_hex(16)
    variables = [
        {"key": "SECRET", "value": secret, "masked": True}, {"key": "KEY", "value": "of a file", "file": True},
        {"key": "GIT_STRATEGY", "value": "none"},
    ]  # fmt: skip
    script = ['echo "<$SECRET>"', 'cat "$KEY"', "exit 5"]
    rendered = rendered_for(
        channel, tmp_path, script=script, after_script=['echo "after: $CI_JOB_STATUS"'], variables=variables
    )
    result, log = run_on(channel, rendered.job_file)
    outcome = outcome_of(result=result)
    assert (outcome.state, outcome.failure_reason, outcome.exit_code) == ("failed", "script_failure", 5)
    assert re.findall(r"section_start:\d+:(\w+)", log) == [
        "prepare_script", "get_sources", "step_script", "after_script", "cleanup_file_variables",
    ]  # fmt: skip
    assert 'Executing "step_script" stage of the job script' in log
    assert "\n<[MASKED]>\n" in log
    assert secret not in log
    assert "of a file" in log
    assert "\nafter: failed\n" in log
    assert not (tmp_path / "home/builds/abcdefghi/1/group/project.tmp").exists()


def test_a_job_gets_its_sources(channel: Channel, tmp_path: pathlib.Path, server: GitServer) -> None:
    source = server.host.commit("group/project", {"a.txt": "from the repository\n"})
    place = Workplace(home=tmp_path / "home", server=server, shell="bash", environment=dict(os.environ))
    rendered = place.render(source, script=["cat a.txt"])
    result, log = run_on(channel, rendered.job_file)
    assert outcome_of(result=result).state == "success", log
    assert "\nfrom the repository\n" in log
    assert place.token not in log
    assert place.holds(place.token) == []


def test_steps_of_any_name_and_empty_ones_are_fine(channel: Channel, tmp_path: pathlib.Path) -> None:
    steps = [
        {"name": "script", "script": []}, {"name": "odd näme/with $igns", "script": ["echo odd"]},
        {"name": "after_script", "script": []},
    ]  # fmt: skip
    result, log = run_on(channel, rendered_for(channel, tmp_path, steps=steps).job_file)
    assert outcome_of(result=result).state == "success", log
    assert "\nodd\n" in log
    result, _ = run_on(channel, rendered_for(channel, tmp_path, steps=[]).job_file)
    assert outcome_of(result=result).state == "success"


def test_a_script_time_out_leaves_room_for_after_script(channel: Channel, tmp_path: pathlib.Path) -> None:
    rendered = rendered_for(
        channel, tmp_path, script=["sleep 60"], after_script=['echo "after: $CI_JOB_STATUS"'],
        variables={"RUNNER_SCRIPT_TIMEOUT": "500ms"},
    )  # fmt: skip
    result, log = run_on(channel, rendered.job_file)
    assert outcome_of(result=result).failure_reason == "job_execution_timeout"
    assert "\nafter: timedout\n" in log
