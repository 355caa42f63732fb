"""What ships in deploy/ starts this program, as systemd and containers do, and a restart of it kills no job."""

from __future__ import annotations

import configparser
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from fleet.cli.exits import MEANINGS, Exit
from fleet.settings.environment import state_dir

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def sections(path: pathlib.Path) -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    found.optionxform = str
    found.read(path)
    return found


@pytest.fixture
def unit() -> configparser.ConfigParser:
    return sections(DEPLOY / "fleet.service")


def test_a_restart_of_the_service_kills_the_manager_alone(unit):
    service = unit["Service"]
    assert service["KillMode"] == "process"
    assert service["KillSignal"] == "SIGTERM"
    assert service["OOMPolicy"] == "continue"
    assert int(service["TimeoutStopSec"]) >= 10, "the manager ends by itself within seconds"
    assert "PrivateTmp" not in service, "jobs that were left running share /tmp with the next start"


def test_it_starts_reloads_and_restarts_as_the_program_understands_it(unit):
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert pathlib.PurePath(program).name == "fleetctl"
    command = [sys.executable, "-m", "fleet.cli.main", *arguments, "--help"]
    helped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Run the manager until a signal ends it" in helped.stdout
    assert "-HUP $MAINPID" in service["ExecReload"]
    assert service["Restart"] == "on-failure"
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == {Exit.USAGE, Exit.CONFIG}
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_state_is_where_the_program_looks_for_it(unit):
    directory = f"/var/lib/{unit['Service']['StateDirectory']}"
    assert state_dir({"STATE_DIRECTORY": directory}) == directory


@pytest.mark.parametrize("hardened", [False, True])
def test_systemd_finds_no_fault_with_the_unit(tmp_path, hardened):
    program = shutil.which("systemd-analyze")
    if program is None:  # the parser above has read it: no more can be said without systemd
        assert sections(DEPLOY / "fleet.service").sections() == ["Unit", "Service", "Install"]
        return
    text = (DEPLOY / "fleet.service").read_text()
    # it looks for the program and its user, which are not installed here
    text = text.replace("/opt/fleet/bin/fleetctl", str(ROOT / ".venv/bin/fleetctl"))
    text = re.sub(r"^(User|Group)=fleet$", r"\1=root", text, flags=re.MULTILINE)
    (tmp_path / "fleet.service").write_text(text)
    if hardened:
        (tmp_path / "fleet.service.d").mkdir()
        shutil.copy(DEPLOY / "fleet-hardened.conf", tmp_path / "fleet.service.d" / "hardened.conf")
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / "fleet.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in done.stderr.splitlines() if "fleet" in line or "hardened" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def test_the_container_starts_the_manager_from_what_it_copies():
    lines = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    words = {word: [rest for each, rest in steps if each == word] for word, _ in steps}
    for image in words["FROM"]:
        assert re.fullmatch(r"[a-z0-9]+:[a-z0-9.\-]+( AS [a-z]+)?", image), (
            "a plain name: whose registry is yours to say"
        )
    for copied in words["COPY"]:
        if not copied.startswith("--from="):
            *sources, _ = copied.split()
            assert [source for source in sources if not (ROOT / source).exists()] == []
    assert words["STOPSIGNAL"] == ["SIGTERM"]
    assert words["USER"] == ["fleet"]
    assert json.loads(words["ENTRYPOINT"][0]) == ["fleetctl"]
    assert json.loads(words["CMD"][0])[0] == "up"
    assert "/var/lib/fleet" in json.loads(words["VOLUME"][0])


def test_the_exit_codes_of_the_page_are_those_of_the_program():
    page = (ROOT / "docs" / "howto" / "systemd.md").read_text()
    told = {int(code) for code in re.findall(r"^\| (\d) \|", page, re.MULTILINE)}
    assert told == {Exit.NEGATIVE, Exit.USAGE, Exit.CONFIG, Exit.UNREACHABLE}
    assert told <= set(MEANINGS)
