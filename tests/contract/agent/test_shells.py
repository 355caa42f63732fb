"""The agent starts the shell that the job file names, and hands it its program on standard input.

PowerShell is a stand-in here, which does what the real one does with one line: it shows what it was given.
"""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from .conftest import Machine

STAND_IN = """#!/bin/sh
echo "started with $*"
echo "on standard input: $(cat)"
exit 7
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "programs"
    made.mkdir()
    (made / "pwsh").write_text(STAND_IN)
    (made / "pwsh").chmod(0o755)
    return made


def test_powershell_gets_its_program_on_standard_input_and_its_code_is_the_jobs(machine: Machine, folder) -> None:
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    result, log = machine.run(machine.job("Write-Output 'hello'", shell="pwsh", environment=environment))
    assert (result["outcome"], result["exit_code"]) == ("failed", 7)
    assert "-NoProfile -NonInteractive" in log
    assert "-Command -\n" in log
    assert "on standard input: Write-Output 'hello'\n" in log


def test_powershell_is_told_of_where_it_is(machine: Machine, folder) -> None:
    assert "pwsh" not in machine.connect().hello["shells"]
    assert "pwsh" in machine.connect(PATH=f"{folder}:{os.environ['PATH']}").hello["shells"]


def test_a_machine_without_it_refuses_the_job(machine: Machine) -> None:
    channel = machine.connect()
    job = json.dumps(machine.job("x", shell="powershell")).encode()
    reply = channel.ask("start", job, lease="x", epoch=1, remaining_s=9)
    assert (reply["ok"], reply["error"]) == (False, "no_shell")
