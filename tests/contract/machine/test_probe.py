"""What `fleetctl check` learns of a host."""

from __future__ import annotations

import dataclasses
import pathlib

from fleet.machine.keys import make_key_pair
from fleet.machine.probe import probe
from tests.contract.machine.local_machine import LocalMachine
from tests.contract.machine.openssh import OpenSsh, free_port


def test_a_fit_host_is_told_with_what_it_has(machine: LocalMachine) -> None:
    report = probe(machine.target)
    assert report.is_fit, report.problems
    assert report.host_key == machine.host_key.public
    assert report.facts["home"] == str(machine.home)
    assert report.facts["usable"].startswith("python3 3.")
    assert report.facts["git"].startswith("git version")
    assert "sh" in report.facts["shells"].split()
    assert int(report.facts["free-kb"]) > 0
    assert list(machine.home.iterdir()) == []


def test_what_is_missing_is_said(machine: LocalMachine) -> None:
    report = probe(machine.target, python="/nonexistent")
    assert not report.is_fit
    assert [text for text in report.problems if "no Python 3.8 or newer" in text and "agent_python" in text]


def test_a_bare_host_lacks_git_and_python(tmp_path: pathlib.Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("sh", "dd", "uname", "id", "tr", "head", "df", "awk", "rm"):
        (bare / tool).symlink_to(pathlib.Path("/usr/bin") / tool)
    with OpenSsh(tmp_path / "sshd", f'ForceCommand PATH={bare}; eval "$SSH_ORIGINAL_COMMAND"') as sshd:
        report = probe(sshd.target)
    assert len(report.problems) == 2
    assert "no Python" in report.problems[0]
    assert "no git" in report.problems[1]
    assert [text for text in report.warnings if "no bash" in text]
    assert [text for text in report.warnings if "no Docker" in text]


def test_a_host_that_is_not_entered_is_a_problem_and_no_exception(machine: LocalMachine) -> None:
    gone = probe(dataclasses.replace(machine.target, port=free_port()))
    assert not gone.is_fit
    assert "whether its SSH server runs" in gone.problems[0]
    other = probe(dataclasses.replace(machine.target, host_keys=(make_key_pair().public,)))
    assert "shows the host key" in other.problems[0]


def test_a_login_shell_that_hangs_is_a_problem(tmp_path: pathlib.Path) -> None:
    with OpenSsh(tmp_path / "sshd", "ForceCommand sleep 60") as sshd:
        report = probe(sshd.target, timeout_s=1.0)
    assert report.problems == ("its login shell did not come to our command in time; look at its start-up files",)
