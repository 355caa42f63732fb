from __future__ import annotations

import os
import secrets
import subprocess

import pytest

from fleet.agent import stages
from fleet.agent.docker.engine import variables_as_options, write_credentials
from fleet.agent.docker.explaining import explain
from fleet.agent.docker.preparing import with_profiles
from fleet.agent.docker.pulling import advice, classify
from fleet.agent.docker.quoting import quote
from fleet.agent.docker.section import problem_with
from fleet.agent.docker.services import addresses, ports_of
from fleet.agent.stages import Ending

OURS, MISTAKEN, OUTSIDE = "runner_system_failure", "runner_configuration_error", "runner_external_dependency_failure"
SECTION = {"image": {"image": "alpine:3"}}
ENDED = Ending(stages.EXITED, 1, "exit code 1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dial tcp 10.0.0.1:443: i/o timeout", OUTSIDE),
        ("lookup nowhere.invalid: no such host", OUTSIDE),
        ("net/http: TLS handshake timeout", OUTSIDE),
        ("received unexpected HTTP status: 503 Service Unavailable", OUTSIDE),
        ("manifest unknown: manifest unknown", MISTAKEN),
        ("pull access denied for x, repository does not exist", MISTAKEN),
        ("unauthorized: authentication required", MISTAKEN),
        ("toomanyrequests: slow down", "image_pull_failure"),
        ("no space left on device", "image_pull_failure"),
    ],
)
def test_a_pull_that_fails_is_blamed_by_its_words(text: str, reason: str) -> None:
    assert classify(text) == reason
    assert advice(text)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (None, OURS, "vanished"),
        ({"Error": 'exec: "sh": executable file not found in $PATH', "ExitCode": 127}, MISTAKEN, "has no shell"),
        ({"Error": 'exec: "/entry": no such file or directory', "ExitCode": 127}, MISTAKEN, "check its entrypoint"),
        ({"Running": True}, OURS, "connection"),
        ({"ExitCode": 0}, OURS, "as it ended"),
        ({"ExitCode": 3}, None, "exit code 3"),
        ({"ExitCode": 137, "OOMKilled": True}, None, "ran out of memory"),
    ],
)
def test_the_end_of_a_container_is_told_in_its_own_words(state: dict | None, reason: str | None, words: str) -> None:
    known = None if state is None else {"State": state, "HostConfig": {"Memory": 64 << 20}}
    ending = explain(ENDED, known, SECTION, "")
    assert ending.reason == reason
    assert words in ending.message
    assert ending.is_vanished is (state is None)


def test_a_container_that_was_stopped_from_outside_is_no_fault_of_its_script() -> None:
    ending = explain(ENDED, {"State": {"ExitCode": 1}}, SECTION, "it was stopped")
    assert (ending.how, ending.code, ending.reason, ending.message) == (stages.BROKEN, 0, OURS, "it was stopped")


def test_variables_are_in_no_argument_list() -> None:
    hidden = secrets.token_hex(8)
    variables = {"A": hidden, "LINES": f"{hidden}\n2", "DOCKER_HOST": "a\nb", "with space": "x", "LONG": "y" * 90000}
    file, words, extra = variables_as_options(variables)
    text = os.read(file, 1 << 20).decode()
    os.close(file)
    assert text == f"A={hidden}\n"
    assert words == ["--env-file", f"/dev/fd/{file}", "-e", "LINES", "-e", "LONG"]
    assert extra == {"LINES": f"{hidden}\n2", "LONG": "y" * 90000}
    assert variables_as_options({}) == (None, [], {})


def test_credentials_are_in_a_file_that_only_the_agent_may_read(tmp_path) -> None:
    folder = write_credentials(str(tmp_path / "c"), {"registry": "reg.a", "username": "u", "password": "p"})
    assert (tmp_path / "c" / "config.json").stat().st_mode & 0o777 == 0o600
    assert "dTpw" in (tmp_path / "c" / "config.json").read_text()
    assert folder == str(tmp_path / "c")
    assert write_credentials(folder, None) is None


@pytest.mark.parametrize("text", ["plain", "it's", "$HOME `x` \\", "a\nb", "''"])
def test_words_come_through_a_shell_unchanged(text: str) -> None:
    shown = subprocess.run(["sh", "-c", f"printf %s {quote(text)}"], capture_output=True, text=True, check=True)
    assert shown.stdout == text


def test_a_service_is_waited_for_on_its_own_ports_or_the_one_that_is_named() -> None:
    image = {"Config": {"ExposedPorts": {"5432/tcp": {}, "53/udp": {}}}}
    assert ports_of({"ports": [80]}, image) == [80, 5432]
    assert ports_of({"environment": {"HEALTHCHECK_TCP_PORT": "81"}}, image) == [81]
    assert ports_of({}, {"Config": {}}) == []
    assert addresses({"NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2"}}}}) == ["10.0.0.2"]
    assert addresses({"NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}) == ["127.0.0.1"]


def test_a_broken_section_is_refused_before_anything_is_promised() -> None:
    spec = {"image": "a", "container": "c"}
    good = {"labels": {}, "places": [{"path": "/builds"}], "image": spec, "helper": spec}
    assert problem_with(good) == ""
    for change in (
        {"labels": None},
        {"places": [{"path": "b"}]},
        {"image": {"image": "a"}},
        {"services": "x"},
        {"network": {}},
    ):
        assert problem_with({**good, **change})
    assert problem_with([])


def test_the_files_that_options_name_are_made_for_the_job(tmp_path) -> None:
    spec = {"options": ["--security-opt", "seccomp={profile:0}"]}
    made = with_profiles({"profiles": ["{}"], "image": spec, "services": [spec]}, str(tmp_path))
    assert made["image"]["options"] == ["--security-opt", f"seccomp={tmp_path}/profile-0.json"]
    assert made["services"] == [made["image"]]
    assert (tmp_path / "profile-0.json").read_text() == "{}"
